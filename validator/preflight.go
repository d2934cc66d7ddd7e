package validator

import (
	"net/http"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// preflightMethod reports whether the request is a CORS preflight, and for
// which method. A preflight has no body and carries no credentials; an OPTIONS
// request that merely looks like one is an ordinary request that needs a rule.
// Fetch standard, section 4.8.
func preflightMethod(r *http.Request) (string, bool) {
	if r.Method != http.MethodOptions || r.ContentLength != 0 || r.Header.Get("Origin") == "" {
		return "", false
	}
	requested := r.Header["Access-Control-Request-Method"]
	if len(requested) != 1 || requested[0] == "" {
		return "", false
	}
	return requested[0], true
}

// authorizePreflight lets a preflight through when the method it announces has
// a rule. The answer tells nothing of what exists behind the rule.
func (r *Resource) authorizePreflight(t target, requested string) (Decision, error) {
	index := methodIndex(requested)
	if index >= 0 {
		rule, refusal := r.ruleFor(index, t)
		switch {
		case refusal != nil:
			return Decision{}, r.challenged(refusal, nil)
		case rule != nil:
			return Decision{Rule: rule, Preflight: true}, nil
		}
	}
	return r.authorizeUnmatched(index, t)
}

// AnswersPreflights reports whether preflights are answered by AnswerPreflight
// rather than forwarded.
func (r *Resource) AnswersPreflights() bool { return len(r.cfg.CORSOrigins) > 0 }

// AnswerPreflight answers a preflight from the configured origins: 204, with
// the CORS fields only for an origin that is configured byte for byte.
func (r *Resource) AnswerPreflight(w http.ResponseWriter, req *http.Request) {
	h := w.Header()
	h.Set("Vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
	if origin, ok := r.allowedOrigin(req); ok {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Methods", strings.Join(methods[:], ", "))
		h.Set("Access-Control-Allow-Headers", allowedHeaders+toolParameters(req.Header.Get("Access-Control-Request-Headers")))
		h.Set("Access-Control-Max-Age", "600")
	}
	w.WriteHeader(http.StatusNoContent)
}

// allowedHeaders are those that API and MCP clients send.
const allowedHeaders = "Authorization, Content-Type, Accept, MCP-Protocol-Version, Mcp-Session-Id, Mcp-Method, Mcp-Name, Last-Event-ID, DPoP"

// toolParameters returns those of the requested header fields that mirror
// parameters of a tool, whose names the server of the tools chose. MCP
// 2026-07-28, basic/transports, "Custom Headers from Tool Parameters".
func toolParameters(requested string) string {
	var allowed strings.Builder
	for name := range strings.SplitSeq(requested, ",") {
		if name = strings.TrimSpace(name); len(name) > len("mcp-param-") && strings.EqualFold(name[:len("mcp-param-")], "mcp-param-") && httpguts.ValidHeaderFieldName(name) {
			allowed.WriteString(", " + name)
		}
	}
	return allowed.String()
}

// SetCORSHeader sets the CORS fields of an answer to an actual request. It does
// nothing unless origins are configured.
func (r *Resource) SetCORSHeader(header http.Header, req *http.Request) {
	if len(r.cfg.CORSOrigins) == 0 {
		return
	}
	header.Add("Vary", "Origin")
	if origin, ok := r.allowedOrigin(req); ok {
		header.Set("Access-Control-Allow-Origin", origin)
		header.Set("Access-Control-Expose-Headers", "WWW-Authenticate, DPoP-Nonce, Retry-After, RateLimit, RateLimit-Policy, Mcp-Session-Id")
	}
}

// allowedOrigin returns the value of Access-Control-Allow-Origin. Credentials
// are never allowed, so that "*" opens nothing a cookie protects.
func (r *Resource) allowedOrigin(req *http.Request) (string, bool) {
	origin := req.Header.Get("Origin")
	switch {
	case origin == "":
		return "", false
	case slices.Contains(r.cfg.CORSOrigins, "*"):
		return "*", true
	default:
		return origin, slices.Contains(r.cfg.CORSOrigins, origin)
	}
}
