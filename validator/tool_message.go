package validator

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// message is what a JSON-RPC message asks for.
type message struct {
	id     []byte // as it came; nil: it has none that can be sent back
	method string // empty: it answers a request of the server
	name   string // of the tool or prompt, or the resource's URI; see namedMethods
}

// The methods of MCP that matter here.
const (
	methodToolsCall = "tools/call"
	methodToolsList = "tools/list"
)

// namedMethods are those whose subject Mcp-Name mirrors, and the parameter that
// names it. MCP 2026-07-28, basic/transports/streamable-http.
var namedMethods = map[string]string{methodToolsCall: "name", "prompts/get": "name", "resources/read": "uri"}

// envelope are the members of a JSON-RPC message.
var envelope = []string{"jsonrpc", "id", "method", "params", "result", "error"}

// callMembers are those of params that say what is called.
var callMembers = []string{"name", "uri", "arguments"}

const (
	// maxMembers bounds a message and the params of a call: six are defined.
	maxMembers = 32
	// maxBatch bounds a batch, in messages: each is worth a few allocations.
	maxBatch = 256
	// maxMessageID bounds what is sent back of an id, in bytes.
	maxMessageID = 256
)

// rpcError is a body that is no message, or has two readings. Its code is that
// of JSON-RPC section 5.1 or of MCP 2026-07-28, basic.
type rpcError struct {
	code    int
	problem string
	id      []byte
}

func (e *rpcError) Error() string { return e.problem }

const (
	rpcParseError     = -32700
	rpcInvalidRequest = -32600
	rpcHeaderMismatch = -32020
)

func invalidMessage(format string, args ...any) *rpcError {
	return &rpcError{code: rpcInvalidRequest, problem: fmt.Sprintf(format, args...)}
}

// readMessages reads the body of a request to an MCP server: one JSON-RPC
// message, or a batch (MCP 2025-03-26 only, but who knows what a server takes).
// The error is an *rpcError.
//
// Readers of JSON differ: one takes the first of two members and another the
// last, one takes "Method" for method, one lets "method" win over "result". A
// message on which any two could differ is refused, in its envelope and in the
// params of a call; arguments are the tool's affair. RFC 8259 section 4.
func readMessages(body []byte) (messages []message, batch bool, err error) {
	d, root, err := parseDocument(body)
	if err != nil {
		return nil, false, &rpcError{code: rpcParseError, problem: err.Error()}
	}
	if !d.is(root, '[') {
		m, err := d.message(root)
		return []message{m}, false, err
	}
	for element := range d.elements(root) {
		if len(messages) == maxBatch {
			return nil, true, invalidMessage("more than %d messages", maxBatch)
		}
		m, err := d.message(element)
		if err != nil {
			return nil, true, err
		}
		messages = append(messages, m)
	}
	if messages == nil {
		return nil, true, invalidMessage("empty batch")
	}
	return messages, true, nil
}

// message reads one message.
func (d document) message(v span) (m message, err error) {
	members, err := d.plainMembers(v, envelope)
	if err != nil {
		return m, err
	}
	m.id = d.messageID(members)
	defer func() {
		if e, ok := err.(*rpcError); ok {
			e.id = m.id
		}
	}()
	method, called := members["method"]
	if !called {
		return m, nil
	}
	if _, answers := members["result"]; answers {
		return m, invalidMessage("method beside result")
	}
	if _, answers := members["error"]; answers {
		return m, invalidMessage("method beside error")
	}
	var ok bool
	if m.method, ok = d.text(method); !ok || !isPlainText(m.method) {
		return m, invalidMessage("method is not plain text")
	}
	if m.method != methodToolsCall && strings.EqualFold(m.method, methodToolsCall) {
		return m, invalidMessage("method differs from %s in case", methodToolsCall)
	}
	parameter, named := namedMethods[m.method]
	if !named {
		return m, nil
	}
	if m.name, err = d.subject(members["params"], parameter); err != nil {
		return m, err
	}
	return m, nil
}

// subject returns the parameter that says what is called.
func (d document) subject(params span, parameter string) (string, error) {
	if params == (span{}) {
		return "", invalidMessage("params are missing")
	}
	members, err := d.plainMembers(params, callMembers)
	if err != nil {
		return "", err
	}
	value, ok := members[parameter]
	if !ok {
		return "", invalidMessage("params have no %s", parameter)
	}
	name, ok := d.text(value)
	if !ok || name == "" {
		return "", invalidMessage("%s is not a string", parameter)
	}
	return name, nil
}

// plainMembers returns the members of an object in which each name is plain,
// stands once in whatever case, and is not one of known in another case.
func (d document) plainMembers(v span, known []string) (map[string]span, error) {
	if !d.is(v, '{') {
		return nil, invalidMessage("not an object")
	}
	members := make(map[string]span, len(envelope))
	for quoted, value := range d.members(v) {
		name, _ := d.text(quoted)
		switch {
		case !isPlainText(name):
			return nil, invalidMessage("a member's name is not plain text")
		case name == "__proto__": // some copies of an object inherit from it
			return nil, invalidMessage("a member is called __proto__")
		case !slices.Contains(known, name) && slices.ContainsFunc(known, func(k string) bool { return strings.EqualFold(k, name) }):
			return nil, invalidMessage("a member differs from a known one in case")
		case len(members) == maxMembers:
			return nil, invalidMessage("more than %d members", maxMembers)
		}
		for other := range members {
			if strings.EqualFold(other, name) {
				return nil, invalidMessage("a member stands there twice")
			}
		}
		members[name] = value
	}
	return members, nil
}

// messageID returns the id, to be sent back as it came.
func (d document) messageID(members map[string]span) []byte {
	id, ok := members["id"]
	if !ok || id.to-id.from > maxMessageID || d.is(id, '{') || d.is(id, '[') || d.is(id, 't') || d.is(id, 'f') || d.is(id, 'n') {
		return nil
	}
	return d[id.from:id.to]
}

// checkMirrors holds the header fields that repeat what stands in the body to
// it: a server may go by either. MCP 2026-07-28, basic/transports, "Server
// Validation". Fields that are missing are the server's affair.
func checkMirrors(header http.Header, messages []message, batch bool) *rpcError {
	method, err := mirror(header, "Mcp-Method")
	if err != nil {
		return err
	}
	name, err := mirror(header, "Mcp-Name")
	if err != nil {
		return err
	}
	if name != nil {
		decoded, err := decodeMirror(*name)
		if err != nil {
			return err
		}
		name = &decoded
	}
	m := messages[0]
	_, named := namedMethods[m.method]
	switch {
	case method == nil && name == nil:
		return nil
	case batch:
		return mismatch("a header field is about one message, and there are several", nil)
	case method != nil && *method != m.method:
		return mismatch("Mcp-Method is not the method of the body", m.id)
	case name != nil && named && *name != m.name:
		return mismatch("Mcp-Name is not the name in the body", m.id)
	}
	return nil
}

// mirror returns the value of a header field; nil: it is not there.
func mirror(header http.Header, field string) (*string, *rpcError) {
	switch values := header[field]; len(values) {
	case 0:
		return nil, nil
	case 1:
		return &values[0], nil
	default:
		return nil, mismatch(field+" stands there twice", nil)
	}
}

// decodeMirror decodes a name that is no plain ASCII. MCP 2026-07-28,
// basic/transports, "Value Encoding".
func decodeMirror(value string) (string, *rpcError) {
	encoded, ok := strings.CutPrefix(value, "=?base64?")
	if !ok || !strings.HasSuffix(encoded, "?=") {
		return value, nil
	}
	decoded, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSuffix(encoded, "?="))
	if err != nil {
		return "", mismatch("Mcp-Name is not base64", nil)
	}
	return string(decoded), nil
}

func mismatch(problem string, id []byte) *rpcError {
	return &rpcError{code: rpcHeaderMismatch, problem: problem, id: id}
}

// isAboutMessage reports whether no other token would help: the body is at
// fault.
func (r *Refusal) isAboutMessage() bool {
	return r.rpc != nil && r.Status == http.StatusBadRequest || r.Status == http.StatusRequestEntityTooLarge || r.Status == http.StatusUnsupportedMediaType
}

// messageBody is the body as a JSON-RPC error: clients take any other for the
// end of the connection, and not of the call. Codes that the specifications do
// not define are HTTP's. MCP 2026-07-28, basic, "Error Codes".
func (r *Refusal) messageBody() []byte {
	type data struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	type problem struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
		Data    data   `json:"data"`
	}
	body, _ := json.Marshal(struct { // strings, and an id that was JSON: cannot fail
		Version string          `json:"jsonrpc"`
		ID      json.RawMessage `json:"id,omitempty"`
		Error   problem         `json:"error"`
	}{"2.0", r.rpc.id, problem{r.rpc.code, r.Description, data{r.bodyCode(), r.Description}}})
	return body
}
