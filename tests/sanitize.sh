#!/bin/sh
# Runs the tests of the native side under AddressSanitizer and UBSan, on a copy of the package with a
# library of its own, in an environment where scdr is installed. Arguments go to pytest.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
copy=build/sanitize
rm -rf "$copy"
SCDR_SANITIZE=1 SCDR_CUDA=0 "$python" setup.py -q build --build-base "$copy" --build-lib "$copy/lib"

# The sanitizer's runtime must come before all other libraries, and libstdc++ must be there when it
# looks for the function that throws. Python and torch keep memory until the end: not leaks of ours.
LD_PRELOAD="$(c++ -print-file-name=libasan.so) $(c++ -print-file-name=libstdc++.so)"
ASAN_OPTIONS=detect_leaks=0
UBSAN_OPTIONS=print_stacktrace=1
PYTHONPATH="$PWD/$copy/lib"
PYTHONSAFEPATH=1 # not the package in the working directory
export LD_PRELOAD ASAN_OPTIONS UBSAN_OPTIONS PYTHONPATH PYTHONSAFEPATH
"$python" -c 'import scdr; assert scdr.build_info().sanitizer, "not the sanitized library"'
# A process for each core and one thread in each, but for the tests that set the number themselves.
# Left out is what puts torch to work rather than the native side.
export OMP_NUM_THREADS=1
exec "$python" -m pytest -q -n auto --dist worksteal tests/fuzz tests/test_native.py \
  tests/ops/test_factor_posteriors.py tests/ops/test_mapping_sgd_epoch.py \
  tests/ops/test_mf_adam_and_clipping.py tests/ops/test_mf_sgd_epoch.py \
  tests/ops/test_pgd_perturb_mlp.py tests/ops/test_recommend_topk.py \
  tests/ops/test_sharp_losses_native.py tests/ops/test_slices.py \
  -k "not (compile or gradcheck or like_torch or opcheck or over_all_of_float32)" "$@"
