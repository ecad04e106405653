"""Services to try environments with, for the suite of environments' authors: each answers `/`, and 404 to what is not there."""

from __future__ import annotations

from pathlib import Path

import oci

from colla.environments.conformance import Sample

# Answers with its variables, or with 404 when they say "nothing" anywhere (the path that the suite asks for).
WAT = """
(module
 (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
 (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
 (import "wasi_snapshot_preview1" "environ_get" (func $environ (param i32 i32) (result i32)))
 (memory (export "memory") 2)
 (data (i32.const 1024) "Content-Type: text/plain\\n\\n")
 (data (i32.const 1100) "Status: 404 Not Found\\n\\n")
 (func $say (param $at i32) (param $length i32)
  (i32.store (i32.const 0) (local.get $at)) (i32.store (i32.const 4) (local.get $length))
  (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
 (func (export "_start") (local $at i32)
  (drop (call $sizes (i32.const 16) (i32.const 20)))
  (drop (call $environ (i32.const 2048) (i32.const 8192)))
  (local.set $at (i32.const 8192))
  (loop $on
   (if (i32.and (i32.eq (i32.load (local.get $at)) (i32.const 0x68746f6e))
                (i32.eq (i32.load offset=3 (local.get $at)) (i32.const 0x676e6968)))
    (then (call $say (i32.const 1100) (i32.const 23)) (return)))
   (local.set $at (i32.add (local.get $at) (i32.const 1)))
   (br_if $on (i32.lt_u (local.get $at) (i32.add (i32.const 8192) (i32.load (i32.const 20))))))
  (call $say (i32.const 1024) (i32.const 26))
  (call $say (i32.const 8192) (i32.load (i32.const 20)))))
"""


def wasm_sample(base: Path) -> Sample:
    from wasmtime import wat2wasm

    folder = base.parent / f"{base.name}-sample"
    folder.mkdir()
    (folder / "module.wasm").write_bytes(bytes(wat2wasm(WAT)))
    return Sample(folder)


def container_sample(base: Path) -> Sample:
    # Ends by SIGTERM, which the first process of a container does only when it says so.
    script = "trap 'exit 0' TERM; /bin/busybox httpd -f -p 127.0.0.1:8080 -h /www & wait"
    image = oci.image(["/bin/sh", "-c", script], {"www/index.html": b"here"})
    return Sample(oci.write_folder(base.parent / f"{base.name}-sample", image))
