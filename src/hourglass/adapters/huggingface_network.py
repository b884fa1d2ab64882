"""A frozen network that stops at a layer, and how its states are computed fast: for every reader of Hugging Face models.

What is read is a flat array of tokens and windows into it. What makes it fast: windows sorted by length so that little is
padded, no attention mask where nothing is padded, attention by plain products (`cpu_attention`), a cache-sized batch for
each core instead of all cores on one batch (no core waits for another, which on a busy machine costs most of the time),
and no block beyond the layer that is asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from hourglass.adapters import huggingface_loading as loading
from hourglass.adapters import huggingface_sites as sites
from hourglass.errors import ConfigError, StatesError
from hourglass.waist import as_device

Array = np.ndarray[Any, Any]

_SMALLEST_BATCH = 256
_ALIGNED = 16  # at other lengths, attention in bfloat16 on a CPU takes about twice as long
_MOST_WORKERS = 8  # with more, the cores would wait for Python
_CPU = threading.Lock()  # two reads at a time would only take each other's cores


class FrozenNetwork:
    """A network without its head, cut off after `layer` (None: whole), and the tokenizer that came with it.

    module            the transformers model
    layer, depth      the layer it stops at, counted from 0, and the blocks it had; None where it does not stop
    tokens_per_batch  padded tokens that it sees at once; None: 2048 on a CPU, 65,536 on a GPU

    Raises FolderError for a model that cannot be had, ConfigError for a layer that it does not have.
    """

    def __init__(
        self, model: str, *, layer: int | None, dtype: torch.dtype, device: torch.device, tokens_per_batch: int | None
    ) -> None:
        self.device, self.dtype = device, dtype
        self.tokenizer, module = loading.load(model, dtype)
        self.module: nn.Module = module.to(device).eval().requires_grad_(False)
        self.layer: int | None = None
        self.depth: int | None = None
        if layer is not None:
            self.layer, self.depth = sites.stop_at(self.module, layer)
        if device.type == "cpu" and dtype == torch.bfloat16:
            from hourglass.adapters.cpu_attention import use_cpu_attention  # brings transformers

            use_cpu_attention(self.module)
        self.revision = getattr(module.config, "_commit_hash", None)
        self._pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0
        self._tokens_per_batch = tokens_per_batch or (2048 if device.type == "cpu" else 65_536)

    def find(self, layer: int | None, site: str) -> sites.Place:
        """A place on the way to the layer at which the network stops."""
        if layer is not None:
            depth = self.depth or len(loading.blocks(self.module)[2])
            wanted = sites.count(layer, depth)
            if self.layer is not None and wanted > self.layer:
                raise ConfigError(
                    f"layer {layer}: the reader stops at layer {self.layer}; open it at the highest layer"
                )
            layer = wanted
        elif self.layer is not None:
            raise ConfigError(f"the last state: the reader stops at layer {self.layer}; open it without a layer")
        return sites.find(self.module, layer, site)

    def states(
        self,
        ids: Array,
        windows: Array,
        size: int,
        places: Sequence[sites.Place],
        *,
        longest: int,
        whose: Callable[[Array], Array],
        prefix: Sequence[int] = (),
        suffix: Sequence[int] = (),
        positions: Array | None = None,
    ) -> list[Tensor]:
        """[size, width] states on the CPU at each place, from one pass.

        ids        [T] tokens
        windows    [n, 5] first and past-last token that the network sees together, first and past-last that states are
                   taken of, the row of the first of these. Tokens before a window's first are the prefix's, after its
                   last the suffix's
        longest    to which length a window may be padded, prefix and suffix included
        whose      the text that rows belong to, for the error
        positions  [T] of each token; where they do not go on by 1, a new text begins that does not see those before it.
                   None: a window is one text and counts from 0

        Raises StatesError with a text for which a number is not finite.
        """
        run = _Run(self, ids, prefix, suffix, positions, longest)
        all_states = [torch.empty(size, place.width, dtype=self.dtype) for place in places]

        with _CPU if self.device.type == "cpu" else nullcontext(), sites.listening(places) as heard:

            @torch.inference_mode()
            def compute(batch: Array) -> None:
                found = run.forward(batch, heard)
                source, target = run.kept(batch, found[0].shape[1])
                for place, hidden, states in zip(places, found, all_states):
                    kept = hidden.reshape(-1, place.width)[source.to(self.device)].to("cpu", self.dtype)
                    _check(kept, place, whose, target)
                    states[target] = kept

            self._each(run, compute, windows)
        return all_states

    def _each(self, run: _Run, compute: Callable[[Array], None], windows: Array) -> None:
        """Call `compute` on batches of all windows; on a CPU on several at the same time, each with its own cores."""
        if self.device.type != "cpu":
            for batch in run.batches(windows, self._tokens_per_batch):
                compute(batch)
            return
        threads = torch.get_num_threads()
        workers = threads // -(-threads // _MOST_WORKERS)
        tokens = int((windows[:, 1] - windows[:, 0]).sum())
        # Few texts make smaller batches, so that every core has one.
        budget = min(self._tokens_per_batch, max(_SMALLEST_BATCH, tokens // workers))
        batches = list(run.batches(windows, budget))
        workers = max(1, min(workers, len(batches)))

        def prepare() -> None:
            torch.get_num_threads()  # or the first operation would overwrite what is set next
            torch.set_num_threads(threads // workers)

        try:
            with ThreadPoolExecutor(workers, initializer=prepare) as pool:
                for _ in pool.map(compute, batches):
                    pass
        finally:
            torch.set_num_threads(threads)


class NetworkReader:
    """What readers of a network have in common: the place they read, and what it takes to read it again."""

    def __init__(
        self,
        model: str,
        *,
        layer: int | None,
        site: str,
        dtype: Literal["auto", "float32", "bfloat16"],
        tokens_per_batch: int | None,
        device: str | torch.device | None,
    ) -> None:
        self.device = as_device(device)
        self._runs = FrozenNetwork(
            model,
            layer=layer,
            dtype=loading.compute_dtype(dtype, self.device),
            device=self.device,
            tokens_per_batch=tokens_per_batch,
        )
        self.layer = self._runs.layer
        self._place = self._runs.find(layer, site)
        self._description: dict[str, Any] = {
            "model": model,
            "revision": self._runs.revision,
            "layer": layer,
            "site": site,
            "dtype": str(self._runs.dtype).removeprefix("torch."),
        }

    @property
    def width(self) -> int:
        """Size of a state."""
        return self._place.width

    @property
    def place(self) -> tuple[int | None, str]:
        """The layer and site that are read."""
        return self.layer, self._place.site

    def width_at(self, layer: int | None, site: str) -> int:
        """Size of a state at another place that the reader comes to; ConfigError for one that it does not."""
        return self._runs.find(layer, site).width

    def describe(self) -> dict[str, Any]:
        """What it takes to have the same states again, for manifests."""
        return dict(self._description)


class _Run:
    """One pass over windows of `ids`."""

    def __init__(
        self,
        network: FrozenNetwork,
        ids: Array,
        prefix: Sequence[int],
        suffix: Sequence[int],
        positions: Array | None,
        longest: int,
    ) -> None:
        self._network, self._ids, self._positions, self._longest = network, ids, positions, longest
        self._prefix, self._suffix = prefix, suffix

    def batches(self, windows: Array, budget: int) -> Iterator[Array]:
        """Runs of windows of like length, the longest first, each within the budget of padded tokens."""
        lengths = windows[:, 1] - windows[:, 0] + len(self._prefix) + len(self._suffix)
        order = np.argsort(-lengths, kind="stable")
        start = 0
        while start < len(order):
            count = max(1, budget // self._padded(int(lengths[order[start]])))
            yield windows[order[start : start + count]]
            start += count

    def kept(self, batch: Array, length: int) -> tuple[Tensor, Tensor]:
        """Where the wanted states are in the flattened output of a batch, and where they go."""
        count = batch[:, 3] - batch[:, 2]
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        first = np.arange(len(batch)) * length + len(self._prefix) + batch[:, 2] - batch[:, 0]
        source, target = np.repeat(first, count) + within, np.repeat(batch[:, 4], count) + within
        return torch.from_numpy(source), torch.from_numpy(target)

    def forward(self, batch: Array, heard: sites.Heard) -> list[Tensor]:
        """[windows, longest, width] hidden states of a batch of windows, for each place."""
        network = self._network
        lengths = batch[:, 1] - batch[:, 0]
        before, after = len(self._prefix), len(self._suffix)
        tokens = np.full((len(batch), self._padded(before + int(lengths.max()) + after)), network._pad, np.int64)
        tokens[:, :before] = self._prefix
        for row, (start, stop) in enumerate(batch[:, :2].tolist()):
            tokens[row, before : before + stop - start] = self._ids[start:stop]
            tokens[row, before + stop - start : before + stop - start + after] = self._suffix
        arguments = {"input_ids": torch.from_numpy(tokens).to(network.device)}
        mask = np.arange(tokens.shape[1]) < (lengths + before + after)[:, None]
        if self._positions is not None:
            # Padding stays at position 0, each token of it a text of its own: transformers keeps texts apart by positions
            # that do not go on, and only where there is no mask.
            places = np.zeros(tokens.shape, np.int64)
            for row, (start, stop) in enumerate(batch[:, :2].tolist()):
                places[row, : stop - start] = self._positions[start:stop]
            arguments["position_ids"] = torch.from_numpy(places).to(network.device)
        elif not mask.all():  # nothing padded, no mask: attention is faster without
            arguments["attention_mask"] = torch.from_numpy(mask.astype(np.int64)).to(network.device)
        return heard(network.module(**arguments).last_hidden_state, tokens.shape)

    def _padded(self, length: int) -> int:
        """Tokens to which windows of up to `length` are padded."""
        return min(-(-length // _ALIGNED) * _ALIGNED, self._longest)


def _check(states: Tensor, place: sites.Place, whose: Callable[[Array], Array], target: Tensor) -> None:
    """Every number of states [T, d], which go to rows `target` [T], is finite; or a text is named for which it is not."""
    if not torch.isfinite(states.sum()):  # one number that is not finite makes the sum so, and a sum is quick
        bad = target[~torch.isfinite(states).all(dim=1)]
        if len(bad):
            raise StatesError(str(place), int(whose(bad.numpy()).min()))
