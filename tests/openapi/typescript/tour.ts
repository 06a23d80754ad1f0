// Upload, list, crop, thumbnail, delete, with a client that is typed by the document alone.
import { readFile } from "node:fs/promises";
import { strict as assert } from "node:assert";
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

const [url, token, album, picture] = process.argv.slice(2);
assert(url && token && album && picture);

const headers = { Authorization: `Bearer ${token}` };
const client = createClient<paths>({ baseUrl: url, headers });
const at = (id: string) => ({ params: { path: { image_id: id } } });

type Image = components["schemas"]["Image"];

async function upload(): Promise<Image> {
  const bytes = await readFile(picture!);
  const { data, error, response } = await client.POST("/api/v1/albums/{album_id}/images", {
    params: { path: { album_id: album! } },
    body: { file: "", latitude: 48.85, longitude: 2.35 },
    bodySerializer(body) {
      const form = new FormData();
      for (const [name, value] of Object.entries(body)) {
        form.append(name, name === "file" ? new Blob([bytes]) : String(value));
      }
      return form;
    },
  });
  assert.equal(response.status, 201, JSON.stringify(error));
  return data!;
}

const image = await upload();
assert.deepEqual(image.gps, [48.85, 2.35]);

const listed = await client.GET("/api/v1/albums/{album_id}/images", {
  params: { path: { album_id: album }, query: { limit: 10, format: "jpg" } },
});
assert.deepEqual(listed.data?.map((one) => one.public_id), [image.public_id]);

const cropped = await client.PUT("/api/v1/images/{image_id}", {
  params: { path: { image_id: image.public_id }, header: { "If-Match": '"0"' } },
  body: { crop_x: 8, crop_y: 4, crop_w: 32, crop_h: 24, rotation: 90 },
});
assert.deepEqual([cropped.data?.width, cropped.data?.height], [24, 32]);

const mini = cropped.data?.thumbnails["mini"];
assert(mini);
const thumbnail = await fetch(new URL(mini, url));
assert.equal(thumbnail.headers.get("Content-Type"), "image/jpeg");
assert((await thumbnail.arrayBuffer()).byteLength > 100);

const gone = await client.DELETE("/api/v1/images/{image_id}", at(image.public_id));
assert.equal(gone.response.status, 204);
const missing = await client.GET("/api/v1/images/{image_id}", at(image.public_id));
assert.equal(missing.error?.code, "not_found");

// @ts-expect-error: an angle that is none of the four
await client.PUT("/api/v1/images/{image_id}", { ...at(image.public_id), body: { rotation: 45 } });
console.log("done");
