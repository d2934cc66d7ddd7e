package validator

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// maxMessage bounds the body of a request that is decided by the tool it calls,
// and an answer that a list of tools is taken out of, in bytes. The MCP SDKs of
// Go, TypeScript and Python take no more.
const maxMessage = 4 << 20

// authorizeMessages decides a request to an MCP server that has rules for its
// tools. It reads the body, and leaves the same bytes in its place.
//
// Whoever shows no good token, where one is needed, is refused before a byte of
// the body is read.
func (r *Resource) authorizeMessages(req *http.Request, rule *Rule) (Decision, error) {
	if refusal := r.checkMessageHeader(req); refusal != nil {
		return Decision{}, r.challenged(refusal, rule)
	}
	if !carriesMessages(req) { // a stream is opened, a session ended
		decision, err := r.authorizeBy(req, rule)
		if err == nil {
			decision.tools = rule.tools
		}
		return decision, err
	}
	if !rule.isPublic() {
		shown, refusal := readCredentials(req)
		if refusal == nil {
			if _, err := r.verifier.verify(req.Context(), shown.token); err != nil {
				refusal = refusedToken(err)
				refusal.dpop = shown.dpop
			}
		}
		if refusal != nil {
			return Decision{}, r.challenged(refusal, rule)
		}
	}
	operation, messages, refusal := readOperation(req, rule.tools)
	if refusal != nil {
		return Decision{}, r.challenged(refusal, nil)
	}
	decision, err := r.authorizeBy(req, operation)
	if errors.As(err, &refusal) {
		refusal.rpc = &rpcError{code: refusal.Status, id: answeredID(messages)}
		refusal.keepHeld()
		return Decision{}, err
	}
	if slices.ContainsFunc(messages, func(m message) bool { return m.method == methodToolsList }) {
		decision.tools = rule.tools
	}
	return decision, nil
}

// keepHeld lets the challenge name what the token holds beside what the operation
// needs: MCP clients ask for what the challenge names, and many for nothing else,
// so that each step up would cost them the step before. See ADR 17.
func (r *Refusal) keepHeld() {
	if r.Code == oauth.CodeInsufficientScope {
		held, _ := oauth.ParseScope(r.Identity.Scopes) // ours, well-formed
		r.Scopes = r.Scopes.Union(held)
	}
}

// carriesMessages reports whether the request is one that brings messages, or
// may be.
func carriesMessages(req *http.Request) bool {
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodDelete, http.MethodOptions:
		return req.ContentLength != 0
	}
	return true
}

// answeredID is the id that an answer to the whole request has.
func answeredID(messages []message) []byte {
	if len(messages) != 1 {
		return nil
	}
	return messages[0].id
}

// checkMessageHeader refuses what would take messages past this gate, or come
// from a page that has no business here.
func (r *Resource) checkMessageHeader(req *http.Request) *Refusal {
	if req.Header["Upgrade"] != nil {
		return badRequest("Tools are called by single requests here, not over a WebSocket.", nil)
	}
	if origin := req.Header["Origin"]; len(origin) > 0 && r.AnswersPreflights() {
		// MCP 2025-11-25, basic/transports: "If the Origin header is present and
		// invalid, servers MUST respond with HTTP 403".
		if _, ok := r.allowedOrigin(req); len(origin) > 1 || !ok && origin[0] != r.origin {
			return &Refusal{Status: http.StatusForbidden, Code: oauth.CodeAccessDenied, Description: "Pages of this origin may not call tools here."}
		}
	}
	for name := range req.Header {
		if field, ok := messageFields[len(name)]; ok && name != field && foldsTo(name, fold(field)) {
			return badRequest("A header field is spelled in a way that not everybody reads.", nil)
		}
	}
	return nil
}

// messageFields are the header fields that say how to read a message, or what
// it is; by length. A server that folds spellings (CGI) would take Mcp_Name for
// Mcp-Name.
var messageFields = map[int]string{8: "Mcp-Name", 10: "Mcp-Method", 12: "Content-Type", 16: "Content-Encoding"}

// readOperation returns the rule that the messages of the request must meet,
// and the messages.
func readOperation(req *http.Request, tools *toolTable) (*Rule, []message, *Refusal) {
	if refusal := checkMediaType(req.Header); refusal != nil {
		return nil, nil, refusal
	}
	body, refusal := readBody(req)
	if refusal != nil {
		return nil, nil, refusal
	}
	messages, batch, err := readMessages(body)
	if err != nil {
		return nil, nil, badMessage(err)
	}
	if err := checkMirrors(req.Header, messages, batch); err != nil {
		return nil, nil, badMessage(err)
	}
	var called []string
	for _, m := range messages {
		if m.method == methodToolsCall {
			called = append(called, m.name)
		}
	}
	rule, unknown := tools.operation(called)
	if rule == nil {
		unknown = unknown[:min(len(unknown), maxToolName)]
		return nil, messages, &Refusal{
			Status: http.StatusForbidden, Code: oauth.CodeAccessDenied, Description: "This tool is not open to API clients.",
			Rule: tools.path, Tool: unknown, Cause: fmt.Errorf("no rule for the tool %q", unknown),
			rpc: &rpcError{code: http.StatusForbidden, id: answeredID(messages)},
		}
	}
	return rule, messages, nil
}

// checkMediaType lets JSON in UTF-8 through, not encoded: what is decided on
// must be what the server reads.
func checkMediaType(header http.Header) *Refusal {
	unsupported := func(what string) *Refusal {
		return &Refusal{Status: http.StatusUnsupportedMediaType, Code: oauth.CodeInvalidRequest, Description: what}
	}
	for _, encoding := range header["Content-Encoding"] {
		if !strings.EqualFold(strings.TrimSpace(encoding), "identity") {
			return unsupported("Messages are taken without Content-Encoding only.")
		}
	}
	fields := header["Content-Type"]
	if len(fields) != 1 {
		return unsupported("Messages are taken as application/json only.")
	}
	kind, parameters, err := mime.ParseMediaType(fields[0])
	if err != nil || kind != "application/json" {
		return unsupported("Messages are taken as application/json only.")
	}
	if charset, ok := parameters["charset"]; ok && !strings.EqualFold(charset, "utf-8") {
		return unsupported("Messages are taken in UTF-8 only.")
	}
	return nil
}

// readBody reads the body, at most maxMessage, and puts it back.
func readBody(req *http.Request) ([]byte, *Refusal) {
	tooLarge := func(cause error) *Refusal {
		return &Refusal{Status: http.StatusRequestEntityTooLarge, Code: oauth.CodeInvalidRequest, Description: "The message is too large to be decided.", Cause: cause}
	}
	if req.ContentLength > maxMessage {
		return nil, tooLarge(nil)
	}
	if req.Body == nil {
		return nil, nil
	}
	rest := req.Body
	body, err := io.ReadAll(io.LimitReader(rest, maxMessage+1))
	// Also who lets a refused request pass has it whole.
	req.Body = readerWithCloser{io.MultiReader(bytes.NewReader(body), rest), rest}
	var limit *http.MaxBytesError
	switch {
	case errors.As(err, &limit):
		return nil, tooLarge(err)
	case err != nil:
		return nil, badRequest("The message did not arrive whole.", err)
	case len(body) > maxMessage:
		return nil, tooLarge(nil)
	}
	req.Body = readerWithCloser{bytes.NewReader(body), rest}
	return body, nil
}

type readerWithCloser struct {
	io.Reader
	io.Closer
}

// badMessage refuses a body. The description says what is wrong with it, in
// words of ours.
func badMessage(err error) *Refusal {
	refusal := badRequest("The message can be read in two ways or not at all.", err)
	if errors.As(err, &refusal.rpc) {
		refusal.Description = "The message can be read in two ways or not at all: " + refusal.rpc.problem + "."
		if refusal.rpc.code == rpcHeaderMismatch {
			refusal.Description = "The header does not agree with the message: " + refusal.rpc.problem + "."
		}
	}
	return refusal
}
