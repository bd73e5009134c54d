"""Computation in a thread that no failed allocation has spoiled."""

import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar("Result")


def in_new_thread(compute: Callable[[], Result]) -> Result:
    """Return `compute()`, called in a new thread with the caller's context variables. Raises what it raises.

    When oneDNN finds no memory for the code that it generates, every later code generation in the same thread fails
    (uxlfoundation/oneDNN, pull request 5907), whatever memory is free then.
    """
    results: list[Result] = []
    errors: list[BaseException] = []
    done, computing = threading.Event(), torch.get_num_threads()

    def run() -> None:
        try:
            torch.set_num_threads(computing)  # OpenMP keeps the number per thread; sums depend on it
            results.append(compute())
        except BaseException as error:  # raised again in the caller's thread
            errors.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,))
    thread.start()
    try:
        done.wait()  # not join(): after an interrupt, join() takes a thread for ended that still computes
    finally:
        done.wait()
        thread.join()
    if errors:
        raise errors.pop()  # without a name here, because a name would keep the error's traceback, and its tensors
    return results.pop()
