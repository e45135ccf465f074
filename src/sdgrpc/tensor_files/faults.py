"""What can be wrong with a file of tensors, before a room says it of a LoRA or of a model."""

from __future__ import annotations


class FileFault(Exception):
    """A sentence without its subject, `has 3 tensors too many`; `key` names the tensor to blame, if any."""

    def __init__(self, sentence: str, *, key: str = "") -> None:
        super().__init__(sentence)
        self.sentence, self.key = sentence, key


class TruncatedFile(FileFault):
    """The file ends before what it claims; fetching it again may help."""

    def __init__(self, how: str, *, key: str = "") -> None:
        super().__init__(f"is truncated: {how}", key=key)


class PickledFile(FileFault):
    """The file is a pickle of PyTorch's, which can run code when it is opened."""

    def __init__(self) -> None:
        super().__init__("is a PyTorch pickle, which can run code when it is opened")
