"""The processes that train one student together, and what they exchange."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dfkd_cli.errors import DfkdError, UsageError, first_line, is_out_of_memory
from dfkd_cli.machine.packing import packed, unpacked
from dfkd_cli.machine.world.errors import CalledOffError, LostProcessError
from dfkd_cli.machine.world.exchanges import Gather, Mean, buckets_of

LONGEST_WAIT = timedelta(hours=2)  # for another process: one may compile for long. The watch finds those that ended.
MOST_COMPILED = 1024  # versions of a function. Exchanges cut it into one per layer; torch.compile gives up after 8.
FIRST = 0  # the rank that writes files and prints


class World:
    """All processes of a run. A world of one, which is the default, exchanges nothing.

    Every process calls the same methods in the same order. All of them raise LostProcessError when another process has
    ended, and CalledOffError when another one has called the step off.
    """

    def __init__(self, rank: int = FIRST, size: int = 1, store: Any = None, backend: str = "gloo"):
        self.rank, self.size, self.store, self.backend = rank, size, store, backend
        self.open = False
        self.at_close: Callable[[], None] = lambda: None
        self.steps = 0  # optimizer steps that were computed without running out of memory
        self.attempt = 0  # process groups made so far
        self._apply: Callable[..., Any] = lambda function, *inputs: function.apply(*inputs, self)
        if size > 1:
            self._form()

    @property
    def several(self) -> bool:
        """Return whether there are other processes to exchange anything with."""
        return self.open

    def stay_out_of_compiled_code(self) -> None:
        """Make torch.compile leave the exchanges in the middle of a function to Python."""
        if self.open:
            from torch._dynamo import config

            self._apply = torch.compiler.disable(self._apply)
            config.recompile_limit = config.accumulated_recompile_limit = MOST_COMPILED

    def apply(self, function: type[torch.autograd.Function], *inputs: Any) -> Any:
        """Return the outputs of an autograd function that exchanges values; its last argument is this world."""
        return self._apply(function, *inputs)

    @property
    def is_first(self) -> bool:
        """Return whether this process writes files and prints."""
        return self.rank == FIRST

    def share(self, count: int, name: str) -> int:
        """Return the images of a batch of `count` that this process computes. Raises UsageError if they differ."""
        if count % self.size or count < 2 * self.size:
            nearest = max(2, round(count / self.size)) * self.size
            raise UsageError(
                f"{name}={count} cannot be shared by {self.size} processes, with at least two images each; "
                f"use a multiple of {self.size}, such as {nearest}"
            )
        return count // self.size

    def share_of_memory(self, count: int) -> int:
        """Return how many of `count` stored images this process keeps."""
        return -(-count // self.size)

    def seed(self, seed: int) -> int:
        """Return the seed of this process's random streams; that of the first process is `seed` itself."""
        if self.rank == FIRST:
            return seed
        stream = torch.Generator().manual_seed(seed)
        return int(torch.randint(2**62, (self.rank,), generator=stream)[-1])

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean over the processes of a tensor of equal shape, with gradients if it has some."""
        return self.means([value])[0] if self.open else value

    def means(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Return the means over the processes of several float tensors, in one exchange, with gradients."""
        if not self.open:
            return list(values)
        flat = self.apply(Mean, torch.cat([value.float().reshape(-1) for value in values]))
        pieces = flat.split([value.numel() for value in values])
        return [piece.view(value.shape) for piece, value in zip(pieces, values, strict=True)]

    def gather(self, value: Tensor) -> Tensor:
        """Return the tensors of all processes as [processes, ...], with gradients: [...] of equal shape."""
        return self.apply(Gather, value) if self.open else value.unsqueeze(0)

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum over the processes, without gradients."""
        if not self.open:
            return value
        total = value.detach().clone()
        self.reduce(total)
        return total

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process."""
        if not self.open:
            return flag
        flags = torch.tensor([int(flag)])
        self.reduce(flags)
        return bool(flags.item())

    def of_first(self, number: float) -> float:
        """Return the number of the first process."""
        if not self.open:
            return number
        numbers = torch.tensor([number], dtype=torch.float64)
        self._broadcast(numbers)
        return float(numbers.item())

    def equalise(self, *modules: nn.Module) -> None:
        """Give all processes the weights and statistics of the first one."""
        if self.open:
            with torch.no_grad():
                for value in (value for module in modules for value in module.state_dict().values()):
                    whole = value.contiguous()
                    self._broadcast(whole)
                    value.copy_(whole)

    def average_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace the gradients by their means over the processes. The last exchange of an optimizer step."""
        if not self.open:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        buckets = list(buckets_of(gradients))
        flat = [torch.cat([gradient.reshape(-1) for gradient in bucket]) for bucket in buckets]
        with self._explaining():
            for work in [dist.all_reduce(bucket, async_op=True) for bucket in flat]:
                work.wait()  # pyright: ignore[reportOptionalMemberAccess]
        for bucket, values in zip(buckets, flat, strict=True):
            pieces = values.div_(self.size).split([gradient.numel() for gradient in bucket])
            for gradient, piece in zip(bucket, pieces, strict=True):
                gradient.copy_(piece.view(gradient.shape))

    def collect(self, state: Any) -> list[Any]:
        """Return the states of all processes but the first one in that one, and nothing in the others.

        States are dictionaries of tensors, numbers and text, as of `state_dict`.
        """
        if not self.open:
            return []
        content = torch.frombuffer(bytearray(packed(state)), dtype=torch.uint8)
        sizes = self.gathered(torch.tensor([len(content)])).flatten().tolist()
        others = []
        with self._explaining():
            if not self.is_first:
                dist.send(content, FIRST)
            for rank in range(1, len(sizes)) if self.is_first else ():
                received = torch.empty(sizes[rank], dtype=torch.uint8)
                dist.recv(received, rank)
                others.append(unpacked(received.numpy().tobytes()))
        return others

    def spread(self, state: Any) -> Any:
        """Return the state of the first process, on the CPU; the argument of the others is ignored."""
        if not self.open:
            return state
        content = packed(state) if self.is_first else b""
        size = int(self.of_first(len(content)))
        received = torch.frombuffer(bytearray(content or bytes(size)), dtype=torch.uint8)
        self._broadcast(received)
        return unpacked(received.numpy().tobytes())

    def call_off(self, reason: str) -> None:
        """Make the exchanges in flight fail in all processes, and connect them anew; each of them calls this.

        Raises DfkdError when the processes are not at the same step any more.
        """
        if not self.open:
            return
        self.store.set(f"called off {self.attempt}", reason)
        dist.destroy_process_group()
        self._form()
        if self.any(self.of_first(self.steps) != self.steps):
            raise DfkdError(f"out of memory between two steps: {reason}; continue with --resume")

    def close(self) -> None:
        """Wait for all processes and separate from them: each is a world of one from here on."""
        if self.open:
            self.any(False)
            self.open = False
            self.at_close()
            dist.destroy_process_group()

    def reduce(self, values: Tensor) -> None:
        """Replace the values by their sum over the processes."""
        with self._explaining():
            dist.all_reduce(values)

    def gathered(self, values: Tensor) -> Tensor:
        """Return the values of all processes, [processes, ...], without gradients."""
        everybody = [torch.empty_like(values) for _ in range(self.size)]
        with self._explaining():
            dist.all_gather(everybody, values.contiguous())
        return torch.stack(everybody)

    def _broadcast(self, values: Tensor) -> None:
        with self._explaining():
            dist.broadcast(values, FIRST)

    def _form(self) -> None:
        self.attempt += 1
        store = dist.PrefixStore(f"group {self.attempt}", self.store)  # pyright: ignore[reportPrivateImportUsage]
        with self._explaining():
            dist.init_process_group(
                self.backend, store=store, rank=self.rank, world_size=self.size, timeout=LONGEST_WAIT
            )
        self.open = True

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            reason = first_line(error)
        else:
            return
        # Outside the handler, because the error's traceback references the tensors of the failed step.
        if self._is_called_off():
            raise CalledOffError("another process ran out of memory")
        raise LostProcessError(f"another of the {self.size} processes has ended or cannot be reached ({reason})")

    def _is_called_off(self) -> bool:
        try:
            return self.store.check([f"called off {self.attempt}"])
        except RuntimeError:  # the process that holds the store has ended
            return False


ALONE = World()
