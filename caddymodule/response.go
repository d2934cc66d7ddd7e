package caddymodule

import (
	"io"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-scope/caddy-scope/validator"
)

// gatedResponse is the response of an upstream behind the gate. What was
// answered to one user must not be kept by a shared cache for another
// (RFC 9111 section 3.5); where the gate answers preflights, it also sets the
// CORS fields of the answers that follow them; and our cookies are ours. All
// other fields are the upstream's affair.
type gatedResponse struct {
	caddyhttp.ResponseWriterWrapper
	gate        *Protect
	request     *http.Request
	private     bool
	wroteHeader bool
}

// WriteHeader completes the header.
func (g *gatedResponse) WriteHeader(status int) {
	if !g.wroteHeader && (status >= http.StatusOK || status == http.StatusSwitchingProtocols) {
		g.wroteHeader = true
		g.complete(g.Header())
	}
	g.ResponseWriterWrapper.WriteHeader(status)
}

func (g *gatedResponse) Write(b []byte) (int, error) {
	if !g.wroteHeader {
		g.WriteHeader(http.StatusOK)
	}
	return g.ResponseWriterWrapper.Write(b)
}

// ReadFrom keeps sendfile and the like.
func (g *gatedResponse) ReadFrom(src io.Reader) (int64, error) {
	if !g.wroteHeader {
		g.WriteHeader(http.StatusOK)
	}
	return g.ResponseWriterWrapper.ReadFrom(src)
}

func (g *gatedResponse) complete(header http.Header) {
	validator.StripSetCookies(header)
	if g.private {
		if header["Cache-Control"] == nil && header["Expires"] == nil {
			header["Cache-Control"] = []string{"private"}
		}
		if !variesByAuthorization(header["Vary"]) {
			header["Vary"] = append(header["Vary"], "Authorization")
		}
	}
	if len(g.gate.CORS) > 0 {
		for name := range header { // one authority for CORS: the upstream's is replaced
			if strings.HasPrefix(name, "Access-Control-") {
				delete(header, name)
			}
		}
		g.gate.resource.SetCORSHeader(header, g.request)
	}
}

func variesByAuthorization(vary []string) bool {
	for _, field := range vary {
		for name := range strings.SplitSeq(field, ",") {
			if name = strings.TrimSpace(name); name == "*" || strings.EqualFold(name, "Authorization") {
				return true
			}
		}
	}
	return false
}

var _ http.ResponseWriter = (*gatedResponse)(nil)
