#!/usr/bin/env bash
# Builds the kernels with a sanitizer (address,undefined or thread) beside the installed ones and
# runs their tests on them: native/sanitize.sh KIND [pytest arguments].
set -euo pipefail
cd "$(dirname "$0")/.."
kind=$1
shift
root=$PWD/build/sanitize-${kind%%,*}
python=${PYTHON:-$PWD/.venv/bin/python}
"$python" -m pip install -q --no-deps --no-build-isolation --upgrade --target "$root/site" \
  --config-settings=build-dir="$root/build" \
  --config-settings=cmake.define.FREEHOLD_SANITIZE="$kind" .
# The finder of an editable install would come before PYTHONPATH.
cat > "$root/site/sitecustomize.py" <<'PYTHON'
import sys
sys.meta_path = [f for f in sys.meta_path if type(f).__name__ != "ScikitBuildRedirectingFinder"]
PYTHON
# The interpreter is not built with the sanitizer, so its runtime is loaded first, with the C++
# library whose exceptions it follows. Python itself frees little at exit: leaks are not looked for.
preload=""
case $kind in
  address*) preload="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so)" ;;
  thread) preload="$(g++ -print-file-name=libtsan.so)" ;;
esac
preload="$preload $(g++ -print-file-name=libstdc++.so.6)"
[ $# -gt 0 ] || set -- tests/ops -k "not fresh_pages and not give_them_back" # its memory is its own
# ThreadSanitizer needs addresses where it expects them: setarch -R.
env LD_PRELOAD="$preload" PYTHONPATH="$root/site" OPENBLAS_NUM_THREADS=1 \
  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
  TSAN_OPTIONS=halt_on_error=1:die_after_fork=0 \
  setarch -R "$python" -m pytest -q -p no:cacheprovider -x "$@"
