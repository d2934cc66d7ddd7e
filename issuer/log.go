package issuer

import (
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"net/netip"

	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/ratelimit"

	"context"
)

type visitKey struct{}

// visit is what is known of the request under way beside what it says.
type visit struct {
	// requestID is what its log lines, its audit events and its page share. It is
	// ours: an id that the caller chose could be made to look like another
	// request's.
	requestID string
	uiLocales string // of the authorization request that it belongs to; see speak

	limits []endpointLimit   // of its endpoint
	states []ratelimit.State // of those that were counted
	header http.Header       // of its answer
}

func withVisit(r *http.Request) *http.Request {
	id := make([]byte, 8)
	_, _ = rand.Read(id) // never fails
	return r.WithContext(context.WithValue(r.Context(), visitKey{}, &visit{requestID: hex.EncodeToString(id)}))
}

func (s *Server) requestID(r *http.Request) string {
	if v, ok := r.Context().Value(visitKey{}).(*visit); ok {
		return v.requestID
	}
	return ""
}

type callerKey struct{}

// withCaller notes the network that a request came from, for what is bounded by
// it far below.
func (s *Server) withCaller(r *http.Request) *http.Request {
	network := networkOf(s.cfg.ClientAddress(r)).String()
	return r.WithContext(context.WithValue(r.Context(), callerKey{}, network))
}

func callerNetwork(ctx context.Context) string {
	network, _ := ctx.Value(callerKey{}).(string)
	return network
}

// origin says where a step came from, for audit events, throttles, and what users
// are shown of their connected apps.
func (s *Server) origin(r *http.Request) Origin {
	return Origin{Address: s.cfg.ClientAddress(r), RequestID: s.requestID(r), Agent: cleanLongText(r.UserAgent(), maxAgentRunes)}
}

// maxAgentRunes is what is kept of a User-Agent: it names its program first.
const maxAgentRunes = 200

// peerAddress is the address of the connection.
func peerAddress(r *http.Request) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return peer.Addr().Unmap()
}

// audit writes one line for a finished step. Fields are identifiers; tokens,
// codes, secrets and cookies never are.
func (s *Server) audit(r *http.Request, what string, fields ...zap.Field) {
	if entry := s.cfg.Logger.Check(zap.InfoLevel, what); entry != nil {
		entry.Write(append(fields, zap.String("request_id", s.requestID(r)), zap.Stringer("address", s.cfg.ClientAddress(r)))...)
	}
}

// logError writes why a request could not be answered.
func (s *Server) logError(r *http.Request, err error) {
	s.cfg.Logger.Error("request failed", zap.Error(err), zap.String("request_id", s.requestID(r)))
}

func (s *Server) logPageError(r *http.Request, err error) { s.logError(r, err) }
