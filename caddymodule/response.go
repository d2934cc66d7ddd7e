package caddymodule

import (
	"bufio"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

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
	grant       validator.Grant // the answer rests on it, and ends with it
	caller      caller
	lenient     bool // the gate only observes: the answer is left as it is
	wroteHeader bool
	values      [2]string // of fields that complete sets

	writes int
	stream *stream     // once the answer has turned out to last
	cut    atomic.Bool // by closeAnswer
}

// longAnswer is the number of writes after which an answer counts as one that
// lasts. A reverse proxy copies 32 KiB at a time.
const longAnswer = 8

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
	if g.writes++; g.writes == longAnswer {
		g.follow(g.closeAnswer)
	}
	if err := g.cutOff(); err != nil {
		return 0, err
	}
	return g.ResponseWriterWrapper.Write(b)
}

// FlushError is called where the next byte may be long in coming: event
// streams, bodies of unknown length.
func (g *gatedResponse) FlushError() error {
	if !g.wroteHeader {
		g.WriteHeader(http.StatusOK)
	}
	g.follow(g.closeAnswer)
	return http.NewResponseController(g.ResponseWriter).Flush()
}

// Hijack gives the connection to a WebSocket.
func (g *gatedResponse) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(g.ResponseWriter).Hijack()
	if err == nil {
		g.follow(func() { _ = conn.Close() })
	}
	return conn, buffered, err
}

// follow has the answer closed when what it rests on is over.
func (g *gatedResponse) follow(closeAnswer func()) {
	if !g.caller.known() || g.stream != nil || g.gate.Streams == streamsUntilClose || g.lenient {
		return
	}
	g.stream = &stream{grant: g.grant, close: closeAnswer}
	g.gate.streams.add(g.stream, g.gate)
}

// done is called when the handlers behind the gate have returned.
func (g *gatedResponse) done() {
	if g.stream != nil {
		g.gate.streams.remove(g.stream)
	}
}

// closeAnswer cuts the answer off where it is; it runs beside the handler. The
// deadlines of the connection (HTTP/2: of the stream) are over, which also ends
// the request's context, so that a proxy lets go of the upstream. They are set
// below Caddy's own wrappers, which are the handler's alone and set deadlines
// of their own with each write.
func (g *gatedResponse) closeAnswer() {
	g.cut.Store(true)
	controller := http.NewResponseController(innermost(g.ResponseWriter))
	_ = controller.SetWriteDeadline(time.Unix(1, 0))
	_ = controller.SetReadDeadline(time.Unix(1, 0))
}

// cutOff is an error when closeAnswer was called. It sets the deadlines once more,
// where nothing is being sent that would renew them: or what is left of the answer
// would go out as if that were all.
func (g *gatedResponse) cutOff() error {
	if !g.cut.Load() {
		return nil
	}
	g.closeAnswer()
	return os.ErrDeadlineExceeded
}

func innermost(w http.ResponseWriter) http.ResponseWriter {
	for {
		wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w
		}
		w = wrapper.Unwrap()
	}
}

// sendAtOnce bounds what goes out, in bytes, before it is asked again whether the
// answer was cut off. It is also how much Caddy sends under one deadline.
const sendAtOnce = caddyhttp.DefaultMaxWriteChunk

// ReadFrom keeps sendfile and the like, a part at a time: one call for all of a
// file would renew the deadline that closeAnswer has set, and go on.
func (g *gatedResponse) ReadFrom(src io.Reader) (sent int64, err error) {
	if !g.wroteHeader {
		g.WriteHeader(http.StatusOK)
	}
	g.follow(g.closeAnswer)
	all, ok := src.(*io.LimitedReader) // as http.ServeContent has it; sendfile looks into one, not into two
	if !ok {
		all = &io.LimitedReader{R: src, N: math.MaxInt64}
	}
	for all.N > 0 {
		if err := g.cutOff(); err != nil {
			return sent, err
		}
		part := &io.LimitedReader{R: all.R, N: min(all.N, sendAtOnce)}
		n, err := g.ResponseWriterWrapper.ReadFrom(part)
		sent, all.N = sent+n, all.N-n
		if err != nil || part.N > 0 {
			return sent, err
		}
	}
	return sent, nil
}

func (g *gatedResponse) complete(header http.Header) {
	validator.StripSetCookies(header)
	if g.caller.known() {
		g.values = [2]string{"private", "Authorization"}
		if header["Cache-Control"] == nil && header["Expires"] == nil {
			header["Cache-Control"] = g.values[0:1:1]
		}
		if vary := header["Vary"]; len(vary) == 0 {
			header["Vary"] = g.values[1:2:2]
		} else if !variesByAuthorization(vary) {
			header["Vary"] = append(vary, "Authorization")
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
