"""Makes the folder that is deployed: the page, the player, and the video as HLS (RFC 8216).

    python3 make.py [VIDEO]

Without a video a moving test picture of a minute is made. The whole stream is one fragmented MP4 file; the playlist says
which range of its bytes is which two seconds of it, and the player asks for one range after the other. So every
request is small, may be answered by another replica than the one before, and can be repeated.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PLAYER = HERE / "node_modules" / "hls.js"
SEGMENT_S = 2
FRAMES_PER_SECOND = 25
CODECS = {
    # What every browser and every phone plays.
    "h264": ["-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-c:a", "aac"],
    # Without patents; Safari before 17 does not play it.
    "vp9": [
        "-c:v",
        "libvpx-vp9",
        "-deadline",
        "realtime",
        "-cpu-used",
        "8",
        "-c:a",
        "libopus",
        "-strict",
        "-2",
    ],
}


def test_picture(seconds: int) -> list[str]:
    """ffmpeg's inputs for a picture with a running clock, and a tone."""
    picture = f"testsrc2=size=640x360:rate={FRAMES_PER_SECOND}:duration={seconds}"
    tone = f"sine=frequency=440:beep_factor=4:duration={seconds}"
    return ["-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", tone]


def encode(inputs: list[str], folder: Path, codec: str) -> None:
    """Write `video.m3u8` and `video.mp4`. Every segment begins with a picture of its own, so that it stands alone."""
    every = str(SEGMENT_S * FRAMES_PER_SECOND)
    pictures = [
        "-r",
        str(FRAMES_PER_SECOND),
        "-g",
        every,
        "-keyint_min",
        every,
        "-sc_threshold",
        "0",
        "-b:v",
        "1M",
    ]
    hls = ["-f", "hls", "-hls_time", str(SEGMENT_S), "-hls_playlist_type", "vod"]
    hls += ["-hls_segment_type", "fmp4", "-hls_flags", "single_file", "-hls_segment_filename", "video.mp4"]
    command = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-y", *inputs, *CODECS[codec], *pictures, *hls]
    subprocess.run([*command, "video.m3u8"], cwd=folder, check=True)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="Make the folder that is deployed.")
    parser.add_argument(
        "video", nargs="?", type=Path, help="any file that ffmpeg reads; a test picture without"
    )
    parser.add_argument("--codec", choices=CODECS, default="h264")
    parser.add_argument("--seconds", type=int, default=60, help="of the test picture")
    parser.add_argument("--into", type=Path, default=HERE / "public")
    options = parser.parse_args()
    if shutil.which("ffmpeg") is None:
        sys.exit("ffmpeg is missing. Install it: apt install ffmpeg")
    if not PLAYER.is_dir():
        sys.exit(f"The player is missing. In {HERE}: npm install")
    shutil.rmtree(options.into, ignore_errors=True)
    shutil.copytree(HERE / "page", options.into)
    shutil.copyfile(PLAYER / "dist" / "hls.light.min.js", options.into / "hls.js")
    shutil.copyfile(PLAYER / "LICENSE", options.into / "hls.js.LICENSE.txt")
    inputs = ["-i", str(options.video.resolve())] if options.video else test_picture(options.seconds)
    encode(inputs, options.into, options.codec)


if __name__ == "__main__":
    main()
