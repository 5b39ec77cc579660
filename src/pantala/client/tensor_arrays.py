"""How bytes become arrays of numpy, or tensors of torch; neither is imported before it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from pantala.errors import InvalidRequest

from .tensor_header import TensorInfo, shown

#: By the format's names of dtypes.
_NUMPY: Final[Mapping[str, str]] = {
    "BOOL": "?",
    "I8": "i1",
    "U8": "u1",
    "I16": "<i2",
    "U16": "<u2",
    "F16": "<f2",
    "I32": "<i4",
    "U32": "<u4",
    "F32": "<f4",
    "I64": "<i8",
    "U64": "<u8",
    "F64": "<f8",
    "C64": "<c8",
}

#: Those that numpy has of the package ml_dtypes.
_ML_DTYPES: Final[Mapping[str, str]] = {
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
}

#: Torch has its first ones since long, the last ones since 2.3 and 2.7.
_TORCH: Final[Mapping[str, str]] = {
    "BOOL": "bool",
    "I8": "int8",
    "U8": "uint8",
    "I16": "int16",
    "U16": "uint16",
    "F16": "float16",
    "I32": "int32",
    "U32": "uint32",
    "F32": "float32",
    "I64": "int64",
    "U64": "uint64",
    "F64": "float64",
    "C64": "complex64",
    **_ML_DTYPES,
}


class Arrays(Protocol):
    """Makes arrays of one framework."""

    def dtype(self, name: str) -> Any:
        """Its dtype of the format's name. Raises LookupError, with words: it has none."""

    def over(self, buffer: Any, dtype: Any, shape: tuple[int, ...]) -> Any:
        """An array in a buffer, which is not empty."""

    def empty(self, dtype: Any, shape: tuple[int, ...]) -> Any:
        """An array without elements."""


class _Numpy:
    def __init__(self) -> None:
        import numpy as np  # noqa: PLC0415  it takes longer than all of ours

        self._np = np

    def dtype(self, name: str) -> Any:
        if name in _NUMPY:
            return self._np.dtype(_NUMPY[name])
        if name not in _ML_DTYPES:
            raise LookupError("numpy has none such")
        try:
            import ml_dtypes  # noqa: PLC0415  most files have nothing that needs it
        except ImportError:
            raise LookupError(
                "numpy has it of the package ml_dtypes: pip install ml_dtypes"
            ) from None
        return self._np.dtype(getattr(ml_dtypes, _ML_DTYPES[name]))

    def over(self, buffer: Any, dtype: Any, shape: tuple[int, ...]) -> Any:
        return self._np.frombuffer(buffer, dtype).reshape(shape)

    def empty(self, dtype: Any, shape: tuple[int, ...]) -> Any:
        return self._np.empty(shape, dtype)


class _Torch:
    def __init__(self) -> None:
        import torch  # noqa: PLC0415  it takes seconds

        self._torch = torch

    def dtype(self, name: str) -> Any:
        found = getattr(self._torch, _TORCH.get(name, ""), None)
        if found is None:
            raise LookupError(f"torch {self._torch.__version__} has none such")
        return found

    def over(self, buffer: Any, dtype: Any, shape: tuple[int, ...]) -> Any:
        return self._torch.frombuffer(buffer, dtype=dtype).reshape(shape)

    def empty(self, dtype: Any, shape: tuple[int, ...]) -> Any:
        return self._torch.empty(shape, dtype=dtype)


#: By the names that the safetensors library has for them, too.
_FRAMEWORKS: Final[Mapping[str, Callable[[], Arrays]]] = {
    "np": _Numpy,
    "numpy": _Numpy,
    "pt": _Torch,
    "torch": _Torch,
}


class Maker:
    """Makes what the caller wants of the bytes of tensors.

    Args:
        framework: Its name.
        copy: Into memory of this process's own, which may be written.

    Raises:
        InvalidRequest: There is no such framework, or it is not installed.
    """

    def __init__(self, framework: str, *, copy: bool) -> None:
        if framework not in _FRAMEWORKS:
            raise InvalidRequest(f"framework: want one of {', '.join(_FRAMEWORKS)}")
        try:
            self._arrays = _FRAMEWORKS[framework]()
        except ImportError as error:
            name = error.name or framework
            raise InvalidRequest(
                f"framework={framework!r} needs {name}, which is not installed: pip install {name}"
            ) from error
        self._copy = copy

    def check(self, tensor: TensorInfo, file: str) -> None:
        """See that it can be made, before its bytes are here. Raises InvalidRequest."""
        try:
            self._arrays.dtype(tensor.dtype)
        except LookupError as error:
            raise InvalidRequest(
                f"tensor {shown(tensor.name)} of {file} is of dtype {tensor.dtype}: {error.args[0]}"
            ) from None

    def make(self, tensor: TensorInfo, view: memoryview) -> Any:
        """The tensor, of its bytes. Raises InvalidRequest: the framework cannot have such."""
        dtype = self._arrays.dtype(tensor.dtype)
        try:
            if not tensor.nbytes:
                return self._arrays.empty(dtype, tensor.shape)
            return self._arrays.over(bytearray(view) if self._copy else view, dtype, tensor.shape)
        except (ValueError, OverflowError, RuntimeError) as error:
            raise InvalidRequest(f"tensor {shown(tensor.name)}: {error}") from None
