// Reads pictures as JSON lines {w, h, rgba (base64)} and writes npm's ThumbHash of each, in base64.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import readline from "node:readline";

const found = createRequire(pathToFileURL(process.argv[2] + "/"));
const { rgbaToThumbHash } = await import(pathToFileURL(found.resolve("thumbhash")));
for await (const line of readline.createInterface({ input: process.stdin })) {
  const { w, h, rgba } = JSON.parse(line);
  console.log(Buffer.from(rgbaToThumbHash(w, h, Buffer.from(rgba, "base64"))).toString("base64"));
}
