package validatortest

import (
	"fmt"
	"strings"
)

// Body is the body of a request to an MCP server.
type Body struct{ Name, Text string }

// HostileBodies are bodies that some reader may take for a call of the tool
// forbidden, made by someone who may call allowed only: plainly, or because
// readers of JSON differ. None of them may pass.
func HostileBodies(allowed, forbidden string) []Body {
	call := func(tool string) string {
		return fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":%q,"arguments":{}}}`, tool)
	}
	params := func(text string) string {
		return `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{` + text + `}}`
	}
	message := func(text string) string { return `{"jsonrpc":"2.0","id":1,` + text + `}` }
	escaped := func(text string) string { // every letter as an escape
		var b strings.Builder
		for _, c := range text {
			fmt.Fprintf(&b, `\u%04x`, c)
		}
		return b.String()
	}
	members := ""
	for i := range 40 {
		members += fmt.Sprintf(`"x%d":1,`, i)
	}
	name := func(tool string) string { return `"name":"` + tool + `"` }
	forbiddenParams := `"params":{` + name(forbidden) + `}`
	utf16 := func(text string) string {
		var b strings.Builder
		for i := range len(text) {
			b.WriteString(text[i:i+1] + "\x00")
		}
		return b.String()
	}
	return []Body{
		{"plain", call(forbidden)},
		{"notification", `{"jsonrpc":"2.0","method":"tools/call",` + forbiddenParams + `}`},
		{"null id", `{"jsonrpc":"2.0","id":null,"method":"tools/call",` + forbiddenParams + `}`},
		{"no version", `{"method":"tools/call","id":1,` + forbiddenParams + `}`},
		{"white space", "\r\n\t " + strings.ReplaceAll(call(forbidden), ":", " \t:\r\n ") + " \n"},
		{"escaped tool", params(`"name":"` + escaped(forbidden) + `"`)},
		{"escaped method", message(`"method":"` + escaped("tools/call") + `",` + forbiddenParams)},
		{"escaped slash", message(`"method":"tools\/call",` + forbiddenParams)},
		{"escaped members", `{"jsonrpc":"2.0","id":1,"` + escaped("method") + `":"tools/call","` + escaped("params") + `":{"` + escaped("name") + `":"` + forbidden + `"}}`},

		{"name twice, last forbidden", params(name(allowed) + "," + name(forbidden))},
		{"name twice, first forbidden", params(name(forbidden) + "," + name(allowed))},
		{"name twice, once escaped", params(name(allowed) + `,"` + escaped("name") + `":"` + forbidden + `"`)},
		{"name in another case", params(name(allowed) + `,"Name":"` + forbidden + `"`)},
		{"name in another case first", params(`"NAME":"` + forbidden + `",` + name(allowed))},
		{"name in another case only", params(`"naMe":"` + forbidden + `"`)},
		{"params twice", message(`"method":"tools/call","params":{` + name(allowed) + `},` + forbiddenParams)},
		{"params twice, first forbidden", message(`"method":"tools/call",` + forbiddenParams + `,"params":{` + name(allowed) + `}`)},
		{"params in another case", message(`"method":"tools/call","params":{` + name(allowed) + `},"Params":{` + name(forbidden) + `}`)},
		{"params with a long s", message(`"method":"tools/call","params":{` + name(allowed) + `},"param\u017f":{` + name(forbidden) + `}`)},
		{"params with a long s, raw", message("\"method\":\"tools/call\",\"params\":{" + name(allowed) + "},\"param\u017f\":{" + name(forbidden) + "}")},
		{"method twice", message(`"method":"tools/list","method":"tools/call",` + forbiddenParams)},
		{"method twice, call first", message(`"method":"tools/call","method":"tools/list",` + forbiddenParams)},
		{"method in another case", message(`"method":"ping","Method":"tools/call",` + forbiddenParams)},
		{"method in another case only", message(`"METHOD":"tools/call",` + forbiddenParams)},
		{"method's value in another case", message(`"method":"Tools/Call",` + forbiddenParams)},
		{"method with a space", message(`"method":"tools/call ",` + forbiddenParams)},
		{"method cut off by NUL", message(`"method":"tools/call\u0000x",` + forbiddenParams)},
		{"member cut off by NUL", message(`"method":"ping","method\u0000":"tools/call",` + forbiddenParams)},
		{"name cut off by NUL", params(name(allowed) + `,"name\u0000":"` + forbidden + `"`)},
		{"tool cut off by NUL", params(`"name":"` + forbidden + `\u0000"`)},
		{"member with half a surrogate", params(name(allowed) + `,"name\ud800":"` + forbidden + `"`)},
		{"method beside result, of a call that is allowed", message(`"result":{},"method":"tools/call","params":{` + name(allowed) + `}`)},
		{"method beside error, of a call that is allowed", message(`"error":null,"method":"tools/call","params":{` + name(allowed) + `}`)},
		{"method beside result", message(`"result":{},"method":"tools/call",` + forbiddenParams)},
		{"method beside error", message(`"error":{"code":1,"message":"x"},"method":"tools/call",` + forbiddenParams)},
		{"prototype", message(`"result":{},"__proto__":{"method":"tools/call",` + forbiddenParams + `}`)},
		{"prototype of params", params(name(allowed) + `,"__proto__":{` + name(forbidden) + `}`)},

		{"method is an array", message(`"method":["tools/call"],` + forbiddenParams)},
		{"method is null", message(`"method":null,` + forbiddenParams)},
		{"name is an array", params(`"name":["` + forbidden + `"]`)},
		{"name is an object", params(`"name":{"name":"` + forbidden + `"}`)},
		{"name is null", params(`"name":null`)},
		{"name is empty", params(`"name":""`)},
		{"params by position", message(`"method":"tools/call","params":["` + forbidden + `",{}]`)},
		{"params as text", message(`"method":"tools/call","params":"{\"name\":\"` + forbidden + `\"}"`)},
		{"params are missing", message(`"method":"tools/call","name":"` + forbidden + `"`)},
		{"a message as text", `"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\"}"`},

		{"batch", "[" + call(allowed) + "," + call(forbidden) + "]"},
		{"batch of one", "[" + call(forbidden) + "]"},
		{"batch with a twin", "[" + call(forbidden) + "," + call(allowed) + "]"},
		{"batch in a batch", "[[" + call(forbidden) + "]]"},
		{"empty batch", "[]"},
		{"long batch", "[" + strings.Repeat(`{"method":"ping"},`, 256) + call(allowed) + "]"},
		{"batch with null", "[" + call(allowed) + ",null]"},

		{"a second message after the first", call(allowed) + call(forbidden)},
		{"a second message on the next line", call(allowed) + "\n" + call(forbidden)},
		{"a second message after a NUL", call(allowed) + "\x00" + call(forbidden)},
		{"record separator", "\x1e" + call(forbidden) + "\n"},
		{"byte order mark", "\ufeff" + call(forbidden)},
		{"UTF-16", utf16(call(forbidden))},
		{"UTF-16 with a mark", "\xff\xfe" + utf16(call(forbidden))},
		{"UTF-7", strings.ReplaceAll(call(forbidden), `"`, "+ACI-")},
		{"invalid UTF-8", params("\"name\":\"" + forbidden + "\xff\"")},
		{"invalid UTF-8 in a member", params(name(allowed) + ",\"name\xff\":\"" + forbidden + "\"")},
		{"overlong UTF-8", params("\"\xc1\xae\xc1\xa1me\":\"" + forbidden + "\"," + name(allowed))},
		{"a surrogate in UTF-8", params(name(allowed) + ",\"x\":\"\xed\xa0\x80\"")},

		{"comment", message(`/*"method":"ping",*/"method":"tools/call",` + forbiddenParams)},
		{"line comment", message("//\n\"method\":\"tools/call\"," + forbiddenParams)},
		{"single quotes", strings.ReplaceAll(call(forbidden), `"`, `'`)},
		{"bare members", `{jsonrpc:"2.0",id:1,method:"tools/call",params:{name:"` + forbidden + `"}}`},
		{"comma at the end", params(name(forbidden) + ",")},
		{"comma twice", params(name(forbidden) + `,,"x":1`)},
		{"no end", strings.TrimSuffix(call(forbidden), "}")},
		{"one bracket too many", call(forbidden) + "}"},
		{"NaN", `{"jsonrpc":"2.0","id":NaN,"method":"tools/call",` + forbiddenParams + `}`},
		{"Infinity", params(name(allowed) + `,"x":-Infinity,` + name(forbidden))},
		{"number 1.", params(name(forbidden) + `,"x":1.`)},
		{"number 01", params(name(forbidden) + `,"x":01`)},
		{"True", params(name(forbidden) + `,"x":True`)},
		{"control byte in a string", params(name(allowed) + ",\"x\":\"\n\"")},
		{"unknown escape", params(name(allowed) + `,"x":"\x41"`)},
		{"deep", params(name(allowed) + `,"arguments":` + strings.Repeat("[", 2000) + strings.Repeat("]", 2000))},
		{"deep beyond a thousand", `[` + strings.Repeat("[", 200_000)},
		{"many members", `{"jsonrpc":"2.0","id":1,` + members + `"method":"ping"}`},
		{"YAML", "jsonrpc: \"2.0\"\nid: 1\nmethod: tools/call\nparams:\n  name: " + forbidden + "\n"},
		{"form", "method=tools/call&name=" + forbidden},
		{"nothing", ""},
		{"spaces", "   "},
		{"null", "null"},
		{"true", "true"},
		{"number", "1"},
	}
}

// HonestBodies are bodies that clients of any version send, and that a caller
// who may call allowed only gets through, byte for byte.
func HonestBodies(allowed string) []Body {
	call := func(id, rest string) string {
		return `{"jsonrpc":"2.0","id":` + id + `,"method":"tools/call","params":{"name":"` + allowed + `"` + rest + `}}`
	}
	return []Body{
		{"initialize", `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"x","version":"1"}}}`},
		{"initialized", `{"jsonrpc":"2.0","method":"notifications/initialized"}`},
		{"ping", `{"jsonrpc":"2.0","id":"a-b","method":"ping"}`},
		{"list", `{"method":"tools/list","params":{"cursor":"x"},"jsonrpc":"2.0","id":2}`},
		{"discover", `{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}`},
		{"call", call("3", `,"arguments":{"q":"go","Name":"x","name":"y","name":"z"}`)},
		{"call without arguments", call("3", "")},
		{"call with white space", "\n { \"jsonrpc\" : \"2.0\" , \"id\" : 3 , \"method\" : \"tools/call\" ,\t\"params\" : { \"name\" : \"" + allowed + "\" } }\r\n"},
		{"call with meta and task", call(`"x"`, `,"arguments":{},"_meta":{"progressToken":1,"io.modelcontextprotocol/clientInfo":{}},"task":{"ttl":1},"inputResponses":{},"requestState":"s"`)},
		{"call with a huge number", call("1e400", `,"arguments":{"n":123456789012345678901234567890e99999}`)},
		{"call with all of Unicode", call("3", `,"arguments":{"é":"𝄞 \ud834\udd1e \ud800 \u0000 \/","日本":null}`)},
		{"call with deep arguments", call("3", `,"arguments":`+strings.Repeat(`{"a":[`, 50)+strings.Repeat("]}", 50))},
		{"answer", `{"jsonrpc":"2.0","id":7,"result":{"roots":[],"method":"tools/call"}}`},
		{"error", `{"jsonrpc":"2.0","id":7,"error":{"code":-1,"message":"no"}}`},
		{"batch", "[" + call("1", "") + `,{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}},` + call("2", "") + "]"},
		{"long batch", "[" + strings.Repeat(`{"jsonrpc":"2.0","method":"ping"},`, 255) + call("1", "") + "]"},
		{"read", `{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"file:///a"}}`},
		{"prompt", `{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"name":"greet"}}`},
	}
}
