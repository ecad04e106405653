// Plays video.m3u8: by hls.js where the browser has Media Source Extensions, else by the browser itself (iPhones).
"use strict";

const SOURCE = "video.m3u8";
const video = document.getElementById("video");
const said = document.getElementById("said");

if (window.Hls && Hls.isSupported()) {
  // A computer that dies costs the player one request, which it repeats; the buffer covers the time until then.
  const retry = { maxNumRetry: 8, retryDelayMs: 200, maxRetryDelayMs: 2000 };
  const patience = { maxTimeToFirstByteMs: 5000, maxLoadTimeMs: 20000, timeoutRetry: retry, errorRetry: retry };
  const player = new Hls({
    maxBufferLength: 8,
    maxMaxBufferLength: 8,
    playlistLoadPolicy: { default: patience },
    fragLoadPolicy: { default: patience },
  });
  player.on(Hls.Events.ERROR, (_, error) => {
    if (!error.fatal) return;
    said.textContent = `The stream broke off (${error.details}); trying again.`;
    if (error.type === Hls.ErrorTypes.MEDIA_ERROR) player.recoverMediaError();
    else player.startLoad();
  });
  player.loadSource(SOURCE);
  player.attachMedia(video);
} else {
  video.src = SOURCE;
}
