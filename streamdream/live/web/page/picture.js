// The live picture: reads /stream.mjpg and draws its newest part, and begins again by itself.

const STALL = 5000; // ms without a part; the server sends one a second even if nothing changes

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const text = new TextDecoder("latin1");

/** Yields the JPEGs of a multipart stream. */
async function* parts(body) {
  const reader = body.getReader();
  let data = new Uint8Array();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const joined = new Uint8Array(data.length + value.length);
      joined.set(data);
      joined.set(value, data.length);
      data = joined;
      for (;;) {
        const head = text.decode(data.subarray(0, 400));
        const end = head.indexOf("\r\n\r\n");
        const length = /content-length: *(\d+)/i.exec(head.slice(0, end));
        if (end < 0 || !length) break;
        const begin = end + 4;
        const stop = begin + Number(length[1]);
        if (data.length < stop) break;
        yield data.slice(begin, stop);
        data = data.subarray(stop);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Shows the stream in a canvas as long as `wanted()`; what goes wrong goes to `say`. */
export class Picture {
  constructor(canvas, frame, say) {
    this.canvas = canvas;
    this.frame = frame;
    this.say = say;
    this.pen = canvas.getContext("2d");
    this.on = true;
    this.stop = new AbortController();
    document.addEventListener("visibilitychange", () => this.again());
    this.run();
  }

  /** Show or hide; a picture that is off is not asked for. */
  turn(on) {
    this.on = on;
    this.again();
  }

  /** Begin anew, as after a lost connection. */
  again() {
    this.stop.abort();
  }

  async run() {
    for (;;) {
      this.stop = new AbortController();
      if (!this.on || document.hidden) {
        if (!this.on) this.say("The picture is off");
        await new Promise((done) => this.stop.signal.addEventListener("abort", done));
        continue;
      }
      let why = "Waiting for the picture …";
      try {
        why = await this.follow(this.stop);
      } catch {
        // told below, and tried again
      }
      if (!this.on || document.hidden) continue;
      this.say(why);
      await sleep(1000);
    }
  }

  async follow(stop) {
    const answer = await fetch("/stream.mjpg", { signal: stop.signal, cache: "no-store" });
    if (!answer.ok) {
      const { error } = await answer.json();
      await sleep(3000);
      return `No picture: ${error}`;
    }
    let stall = setTimeout(() => stop.abort(), STALL);
    try {
      for await (const jpeg of parts(answer.body)) {
        clearTimeout(stall);
        stall = setTimeout(() => stop.abort(), STALL);
        await this.draw(new Blob([jpeg], { type: "image/jpeg" }));
      }
    } finally {
      clearTimeout(stall);
    }
    return "Waiting for the picture …";
  }

  async draw(blob) {
    const image = await createImageBitmap(blob);
    if (this.canvas.width !== image.width || this.canvas.height !== image.height) {
      this.canvas.width = image.width;
      this.canvas.height = image.height;
      document.documentElement.style.setProperty("--shape", String(image.width / image.height));
    }
    this.pen.drawImage(image, 0, 0);
    image.close();
    this.say("");
  }
}
