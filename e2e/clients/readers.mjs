// Reads bodies (base64, one a line) as servers in JavaScript do, and prints for
// each the tools that one of them would call.
import { createInterface } from "node:readline"
import { CallToolRequestSchema, JSONRPCMessageSchema } from "@modelcontextprotocol/sdk/types.js"

const parsers = [
  bytes => JSON.parse(bytes.toString("utf8")),
  bytes => JSON.parse(new TextDecoder().decode(bytes)), // without a byte order mark
  bytes => JSON.parse(bytes.toString("utf8").trim()),
  bytes => JSON.parse(bytes.toString("utf8").split("\n")[0]), // a message a line
  bytes => JSON.parse(bytes.toString("latin1")),
  bytes => JSON.parse(bytes.toString("utf16le")),
  bytes => JSON.parse(bytes.toString("utf8").split("\0")[0]),
]
const views = [
  message => message,
  message => Object.assign({}, message, { params: Object.assign({}, message.params) }), // __proto__ becomes a prototype
  message => ({ ...message }),
  message => { JSONRPCMessageSchema.parse(message); return CallToolRequestSchema.parse(message) },
]

for await (const line of createInterface({ input: process.stdin })) {
  const bytes = Buffer.from(line, "base64")
  const tools = new Set()
  for (const parse of parsers) {
    let parsed
    try { parsed = parse(bytes) } catch { continue }
    for (const message of Array.isArray(parsed) ? parsed.flat(3) : [parsed]) {
      for (const view of views) {
        try {
          const { method, params } = view(message)
          if (method === "tools/call") tools.add(String(params.name))
        } catch {}
      }
    }
  }
  console.log(JSON.stringify([...tools]))
}
