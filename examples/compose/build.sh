#!/bin/sh
# Builds both images from busybox (apt install busybox-static) with Podman, or with Docker: ./build.sh [podman|docker]
set -eu
cd "$(dirname "$0")"
engine=${1:-$(command -v podman || command -v docker)}
busybox=$(command -v busybox)
for service in garden dice; do
  context=$(mktemp -d)
  cp -r "$service/www" start "$context/"
  cp "$busybox" "$context/busybox"
  "$engine" build -q -t "localhost/colla-$service" -f Containerfile "$context"
  rm -r "$context"
done
