"""The processes that train one student together, as PyTorch's `torchrun` starts them; usually one."""
