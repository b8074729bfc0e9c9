#!/bin/sh
# The page's tests drive a real Chromium: Debian's, since no browser build is downloaded elsewhere.
# Without it, and without the right to install it, those tests skip and say so.
set -eu
command -v chromium >/dev/null 2>&1 && exit 0
[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 || exit 0
apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-wqy-zenhei >/dev/null
