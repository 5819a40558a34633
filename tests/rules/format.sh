#!/bin/sh
# clang-format, where the project has a .clang-format
set -eu
cd "$(dirname "$0")/../.." || exit 1
[ -f .clang-format ] && command -v clang-format >/dev/null || exit 0
find src tests -name '*.[ch]' -exec clang-format --dry-run -Werror {} +
