package issuer

// Stands in for the protocol core until authorization_request.go, authorize.go
// and log.go are here. Delete what they replace.

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/oauth"
)

var ErrRequestExpired = errors.New("authorization request expired")

type AuthorizationRequest struct {
	ID              string
	ClientID        string
	RedirectURI     string
	RedirectURISent bool
	Scopes          oauth.ScopeSet
	Resource        string
	State           string
	StateSent       bool
	CodeChallenge   string
	Prompt          []string
	MaxAge          *time.Duration
	LoginHint       string
	UILocales       string
	CreatedAt       time.Time
	BrowserDigest   Digest
	ReauthAfter     time.Time
}

var tmpAEAD = func() cipher.AEAD {
	key := make([]byte, 32)
	rand.Read(key)
	block, _ := aes.NewCipher(key)
	aead, _ := cipher.NewGCM(block)
	return aead
}()

func (s *Server) sealRequest(req *AuthorizationRequest) (string, error) {
	data, err := json.Marshal(req)
	nonce := make([]byte, 12)
	rand.Read(nonce)
	return base64.RawURLEncoding.EncodeToString(tmpAEAD.Seal(nonce, nonce, data, nil)), err
}

func (s *Server) openRequest(sealed string) (*AuthorizationRequest, error) {
	data, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil || len(data) < 12 {
		return nil, errors.New("broken")
	}
	data, err = tmpAEAD.Open(nil, data[:12], data[12:], nil)
	if err != nil {
		return nil, err
	}
	var req AuthorizationRequest
	if err := json.Unmarshal(data, &req); err != nil {
		return nil, err
	}
	if s.cfg.Now().Sub(req.CreatedAt) > 10*time.Minute {
		return nil, ErrRequestExpired
	}
	return &req, nil
}

func (s *Server) issueCode(w http.ResponseWriter, r *http.Request, req *AuthorizationRequest, client *Client, login Login) {
	err := s.cfg.Store.CreateAuthorizationCode(r.Context(), AuthorizationCode{RequestID: req.ID, ClientID: client.ID, UserID: login.UserID, LoginID: login.ID, RedirectURI: req.RedirectURI, Resource: req.Resource, Scopes: req.Scopes, AuthTime: login.AuthTime}, time.Minute, s.origin(r))
	if err != nil {
		s.unavailablePage(w, r, "create code", err)
		return
	}
	s.tmpRedirect(w, req, url.Values{"code": {"code-" + req.ID}})
}

func (s *Server) redirectError(w http.ResponseWriter, r *http.Request, req *AuthorizationRequest, e *oauth.Error) {
	s.tmpRedirect(w, req, url.Values{"error": {e.Code}, "error_description": {e.Description}})
}

func (s *Server) tmpRedirect(w http.ResponseWriter, req *AuthorizationRequest, q url.Values) {
	q.Set("iss", s.cfg.Issuer)
	if req.StateSent {
		q.Set("state", req.State)
	}
	sep := "?"
	if strings.Contains(req.RedirectURI, "?") {
		sep = "&"
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Location", req.RedirectURI+sep+q.Encode())
	w.WriteHeader(http.StatusSeeOther)
}

func (s *Server) origin(r *http.Request) Origin {
	ap, _ := netip.ParseAddrPort(r.RemoteAddr)
	return Origin{Address: ap.Addr(), RequestID: s.requestID(r)}
}
func (s *Server) requestID(r *http.Request) string { return "5f0c1f7e2b" }

// logPageError logs why a page could not be shown: the reader gets fixed text.
func (s *Server) logPageError(r *http.Request, err error) {
	s.log(r).Error("page", zap.Error(err))
}

// audit leaves one line for a decision.
func (s *Server) audit(r *http.Request, what string, fields ...zap.Field) {
	s.log(r).Info(what, fields...)
}

func (s *Server) log(r *http.Request) *zap.Logger {
	logger := s.cfg.Logger
	if logger == nil {
		logger = zap.NewNop()
	}
	return logger.With(zap.String("request_id", s.requestID(r)), zap.Stringer("address", s.origin(r).Address))
}
