"""Tiny random causal models with their heads, and autoencoders for them: nothing is downloaded."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from hourglass.bottlenecks.sparse import SparseAutoencoder, SparseAutoencoderConfig

WIDTH, BLOCKS, POSITIONS = 32, 3, 160
TEMPLATE = "{% for m in messages %}<s>{{ m['content'] }}</s>{% endfor %}{% if add_generation_prompt %}<s>{% endif %}"


def make_causal(folder):
    """Folders gpt2 and llama under `folder`; a token is a byte."""
    tokenizer, signs = _bytes()
    ends = {"vocab_size": len(signs), "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.3}
    torch.manual_seed(0)
    made = {
        "gpt2": GPT2LMHeadModel(GPT2Config(**ends, n_embd=WIDTH, n_layer=BLOCKS, n_head=4, n_positions=POSITIONS)),
        "llama": LlamaForCausalLM(
            LlamaConfig(
                **ends,
                hidden_size=WIDTH,
                num_hidden_layers=BLOCKS,
                num_attention_heads=4,
                num_key_value_heads=2,
                intermediate_size=64,
                max_position_embeddings=POSITIONS,
            )
        ),
    }
    _save(folder, made, tokenizer, {"llama": {"pad_token": "<pad>", "chat_template": TEMPLATE}})
    return folder


def make_readers(folder):
    """Folders bert and t5 under `folder`: models that read but do not go on from a prompt."""
    tokenizer, signs = _bytes()
    torch.manual_seed(0)
    size = {"vocab_size": len(signs)}
    made = {
        "bert": BertModel(
            BertConfig(
                **size,
                hidden_size=WIDTH,
                num_hidden_layers=BLOCKS,
                num_attention_heads=4,
                intermediate_size=64,
                max_position_embeddings=POSITIONS,
            )
        ),
        "t5": T5ForConditionalGeneration(
            T5Config(**size, d_model=WIDTH, d_kv=8, d_ff=64, num_layers=BLOCKS, num_decoder_layers=1, num_heads=4)
        ),
    }
    _save(folder, made, tokenizer, {name: {"pad_token": "<pad>"} for name in made})
    return folder


def _bytes():
    """(tokenizer, its signs); a token is a byte."""
    signs = ["<pad>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({sign: i for i, sign in enumerate(signs)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(signs[:3])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer, signs


def _save(folder, made, tokenizer, more):
    for name, model in made.items():
        model.save_pretrained(folder / name)
        fast = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            bos_token="<s>",
            eos_token="</s>",
            model_max_length=POSITIONS,
            **more.get(name, {}),
        )
        fast.save_pretrained(folder / name)


def orthonormal_sae(scale=2.5):
    """As many latents as dimensions, rows orthonormal, encoder tied, all active: a code is what its feature was set to."""
    sae = SparseAutoencoder(SparseAutoencoderConfig(d_in=WIDTH, width=WIDTH, k=WIDTH, precision="float32"))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        rows, _ = torch.linalg.qr(torch.randn(WIDTH, WIDTH))
        centre = torch.randn(WIDTH)
    with torch.no_grad():
        sae.W_dec.copy_(rows)
        sae.encoder.weight.copy_(rows)
        sae.encoder.bias.fill_(20.0)
        sae.b_dec.copy_(centre)
        sae.scale.fill_(scale)
    return sae.eval()


def random_sae(activation="topk", width=64, k=4, scale=1.7):
    """All parameters random, decoder rows of norm 1."""
    sae = SparseAutoencoder(
        SparseAutoencoderConfig(d_in=WIDTH, width=width, k=k, activation=activation, precision="float32")
    )
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(2)
        sae.W_dec.copy_(torch.nn.functional.normalize(torch.randn(width, WIDTH), dim=1))
        sae.encoder.weight.copy_(torch.randn(width, WIDTH))
        sae.encoder.bias.copy_(torch.randn(width))
        sae.b_dec.copy_(torch.randn(WIDTH))
        sae.scale.fill_(scale)
        if activation == "batchtopk":
            sae.activation.threshold.fill_(9.0)
    return sae.eval()
