package validator

import (
	"bytes"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// mayList returns which tools an answer to the request may list; nil: it lists
// none, or is not looked at.
func (d *Decision) mayList() func(tool string) bool {
	if d.tools == nil {
		return nil
	}
	held, _ := oauth.ParseScope(d.Identity.Scopes) // ours, well-formed
	return func(tool string) bool {
		call := d.tools.calls[tool]
		switch {
		case call == nil:
			return false
		case !d.token.isNone() && !call.admits(d.Identity.Claims):
			return false // asking for more would not help
		case d.token.isNone() || d.tools.listDeclared: // calling one tells the client what to ask for
			return true
		}
		return call.allows(held)
	}
}

// filterTools takes the tools that may not be listed out of a message of an MCP
// server, or out of a batch of them. All other bytes stay as they are; messages
// that list no tools come back unchanged. The error says that data is no JSON.
func filterTools(data []byte, may func(tool string) bool) ([]byte, error) {
	d, root, err := parseDocument(data)
	if err != nil {
		return nil, err
	}
	cut := &cutter{document: d}
	if d.is(root, '[') {
		for message := range d.elements(root) {
			cut.message(message, may)
		}
	} else {
		cut.message(root, may)
	}
	if cut.out == nil {
		return data, nil
	}
	return append(cut.out, d[cut.done:]...), nil
}

// cutter copies a document but for the parts that are replaced.
type cutter struct {
	document
	out  []byte // nil: nothing was replaced
	done int    // up to where the document stands in out
}

func (c *cutter) replace(at span, by string) {
	c.out = append(append(c.out, c.document[c.done:at.from]...), by...)
	c.done = at.to
}

// message filters what a message lists. A list is known by its form, so that it
// is found also where a stream is resumed, whose requests came before.
func (c *cutter) message(message span, may func(string) bool) {
	if !c.is(message, '{') {
		return
	}
	for name, result := range c.members(message) {
		if c.names(name, "result") && c.is(result, '{') {
			c.result(result, may)
		}
	}
}

// result filters a result that lists tools. The list is one for this token, so
// that no cache may serve it to others. MCP 2026-07-28, server/utilities/caching.
func (c *cutter) result(result span, may func(string) bool) {
	lists := false
	for name, value := range c.members(result) {
		lists = lists || c.names(name, "tools") && c.is(value, '[')
	}
	if !lists {
		return
	}
	for name, value := range c.members(result) {
		switch {
		case c.names(name, "tools") && c.is(value, '['):
			c.list(value, may)
		case c.names(name, "cacheScope"):
			c.replace(value, `"private"`)
		}
	}
}

// names reports whether a member has the name.
func (c *cutter) names(quoted span, name string) bool {
	text, _ := c.text(quoted)
	return text == name
}

// list leaves out the tools that may not be listed, each with one comma.
func (c *cutter) list(tools span, may func(string) bool) {
	var kept [][]byte
	dropped := false
	for tool := range c.elements(tools) {
		if c.mayList(tool, may) {
			kept = append(kept, c.document[tool.from:tool.to])
		} else {
			dropped = true
		}
	}
	if dropped {
		c.replace(tools, "["+string(bytes.Join(kept, []byte(",")))+"]")
	}
}

func (c *cutter) mayList(tool span, may func(string) bool) bool {
	if !c.is(tool, '{') {
		return false
	}
	for name, value := range c.members(tool) {
		if c.names(name, "name") {
			tool, ok := c.text(value)
			return ok && may(tool)
		}
	}
	return false
}
