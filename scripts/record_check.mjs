// Reads MCAP files with @mcap/core, decodes every message by the definition that the file carries, and prints what it found as JSON.
import { open } from "node:fs/promises";
import { createRequire } from "node:module";

// NODE_PATH is for require() only
const require = createRequire(import.meta.url);
const { McapIndexedReader } = require("@mcap/core");
const { loadDecompressHandlers } = require("@mcap/support");
const { FileHandleReadable } = require("@mcap/nodejs");
const { parse } = require("@foxglove/rosmsg");
const { MessageReader } = require("@foxglove/rosmsg2-serialization");

const file = await open(process.argv[2]);
const reader = await McapIndexedReader.Initialize({
  readable: new FileHandleReadable(file),
  decompressHandlers: await loadDecompressHandlers(),
});
const decoders = new Map();
for (const [id, channel] of reader.channelsById) {
  const schema = reader.schemasById.get(channel.schemaId);
  decoders.set(id, new MessageReader(parse(new TextDecoder().decode(schema.data), { ros2: true })));
}
const topics = {};
let boxes = 0;
let last;
for await (const message of reader.readMessages()) {
  const { topic } = reader.channelsById.get(message.channelId);
  const decoded = decoders.get(message.channelId).readMessage(message.data);
  topics[topic] = (topics[topic] ?? 0) + 1;
  if (topic.endsWith("/annotations")) {
    boxes += decoded.points.length;
    last = { ...decoded, log_time: String(message.logTime) };
  }
}
const metadata = [];
for await (const record of reader.readMetadata()) {
  metadata.push({ name: record.name, keys: [...record.metadata.keys()] });
}
const json = (_key, value) => (typeof value === "bigint" ? String(value) : ArrayBuffer.isView(value) ? undefined : value);
console.log(JSON.stringify({ topics, boxes, last, metadata }, json));
