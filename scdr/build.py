"""What the native side was built from, and what it runs as here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BuildInfo:
    """Facts of the compiled library.

    Attributes:
        version: version of scdr that the library was compiled from.
        compiler: name and version of the C++ compiler.
        torch: version of torch that it was compiled against; it loads in every later one.
        simd_compiled: SIMD levels in the library, lowest first.
        simd: the level that the kernels use in this process (see SCDR_SIMD).
        cuda_architectures: CUDA architectures in the library; empty where there is no CUDA code.
        cuda_compiler: version of nvcc, or None.
        cuda_why_not: why there is no CUDA code, or None where there is.
        sanitizer: whether it runs under AddressSanitizer and UBSan.
    """

    version: str
    compiler: str
    torch: str
    simd_compiled: tuple[str, ...]
    simd: str
    cuda_architectures: tuple[str, ...]
    cuda_compiler: str | None
    cuda_why_not: str | None
    sanitizer: bool

    def __str__(self) -> str:
        """One fact a line."""
        if self.cuda_architectures:
            cuda = f"{', '.join(self.cuda_architectures)} (nvcc {self.cuda_compiler})"
        else:
            cuda = f"none: {self.cuda_why_not}"
        lines = {
            "scdr": self.version,
            "compiler": self.compiler,
            "built against torch": self.torch,
            "SIMD": f"{self.simd} (compiled: {', '.join(self.simd_compiled)})",
            "CUDA architectures": cuda,
            "sanitizer": "yes" if self.sanitizer else "no",
        }
        return "\n".join(f"{name}: {value}" for name, value in lines.items())


def build_info() -> BuildInfo:
    """The facts of the library in use.

    Returns:
        The facts, one attribute each; `str()` prints one a line.

    Raises:
        RuntimeError: SCDR_SIMD names a level that is unknown or that this processor lacks.
    """
    from scdr._native import _C

    facts = _C.build_facts()
    architectures = (name for name in facts["cuda_architectures"].split(",") if name)
    return BuildInfo(
        version=facts["version"],
        compiler=facts["compiler"],
        torch=facts["torch"],
        simd_compiled=tuple(facts["simd_compiled"]),
        simd=facts["simd"],
        cuda_architectures=tuple(name.removesuffix("-real") for name in architectures),
        cuda_compiler=facts["cuda_compiler"] or None,
        cuda_why_not=facts["cuda_why_not"] or None,
        sanitizer=facts["sanitizer"],
    )
