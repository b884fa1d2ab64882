"""Tiny random models and a tokenizer, made here: nothing is downloaded."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model, LlamaConfig, LlamaModel, PreTrainedTokenizerFast

SENTENCES = [
    "the quick brown fox jumps over the lazy dog",
    "héllo wörld, numbers 12345 and signs: #!?",
    "one two three four",
] * 20
SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "<s>", "<|user|>", "<|end|>"]
TEMPLATE = "{% for m in messages %}<s><|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory):
    """Folders bert, gpt2 and llama, each with a model of three blocks and a byte-level tokenizer."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    size = tokenizer.get_vocab_size()
    torch.manual_seed(0)
    common = {"vocab_size": size}
    made = {
        "bert": BertModel(
            BertConfig(
                **common,
                hidden_size=32,
                num_hidden_layers=3,
                num_attention_heads=4,
                intermediate_size=64,
                max_position_embeddings=64,
            )
        ),
        "gpt2": GPT2Model(GPT2Config(**common, n_embd=32, n_layer=3, n_head=4, n_positions=64)),
        "llama": LlamaModel(
            LlamaConfig(
                **common,
                hidden_size=32,
                num_hidden_layers=3,
                num_attention_heads=4,
                num_key_value_heads=2,
                intermediate_size=64,
                max_position_embeddings=64,
            )
        ),
    }
    for name, model in made.items():
        model.save_pretrained(folder / name)
        if name == "bert":
            tokenizer.post_processor = processors.TemplateProcessing(
                single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
            )
        else:
            tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 3)])
        fast = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            pad_token="[PAD]",
            cls_token="[CLS]",
            sep_token="[SEP]",
            bos_token="<s>",
            model_max_length=64,
        )
        if name == "llama":
            fast.chat_template = TEMPLATE
        fast.save_pretrained(folder / name)
    return folder
