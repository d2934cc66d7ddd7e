package issuer

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// requestLifetime is how long a person may take over signing in and consent.
const requestLifetime = 10 * time.Minute

// ErrRequestExpired: the sealed authorization request is genuine, but older
// than ten minutes.
var ErrRequestExpired = errors.New("authorization request expired")

// AuthorizationRequest is a checked authorization request. Between pages it
// travels sealed in a hidden field: nobody can change it, it takes no row, and
// it is bound to one browser.
type AuthorizationRequest struct {
	ID              string // uuid; the code is made from it
	ClientID        string
	OwnPage         string // path of a page of ours that the sign-in is for, and no client; empty: for one
	UserCode        string // of a device, which has no redirect URI; empty: a browser's own request
	RedirectURI     string
	RedirectURISent bool // false: the client's only one was taken
	Scopes          oauth.ScopeSet
	Wanted          oauth.ScopeSet // what Scopes were before narrowToUser took some out; nil: it took none
	Resource        string         // configured identifier
	State           opaque
	StateSent       bool
	CodeChallenge   string // S256; empty: none
	DPoPKey         string // thumbprint of the key that the code is for; empty: any
	Nonce           string // for the ID token; empty: none
	Prompt          []string
	MaxAge          *time.Duration
	LoginHint       string // an email address
	UILocales       string // for the place where the user signs in, if it is not ours
	// Subject is the user that the client expects, by id_token_hint; empty: any.
	// SubjectUnknown: it expects one, and nobody can tell whom. SubjectAsked: the
	// user has signed in since, and whoever that was is the answer.
	Subject                      string
	SubjectUnknown, SubjectAsked bool
	OtherAccount                 bool   // the user does not want to be who they are signed in as
	Outdated                     string // id of a login that the app it came from does not stand by
	CreatedAt                    time.Time
	BrowserDigest                Digest    // of the cookie of the browser it began in
	ClientRevision               Digest    // that the consent page showed, of a client that registered itself
	ReauthAfter                  time.Time // the login must be newer; zero: any
}

// opaque is text of the client that is given back byte for byte: JSON would
// mend what is not UTF-8.
type opaque string

// maxState bounds the state, so that a page that was shown can be sent: the
// sealed request, twice in base64, fits in maxPageForm.
const maxState = 16 << 10

// maxNonce bounds the nonce, in bytes: it is kept with the code.
const maxNonce = 512

// MarshalText encodes the bytes in base64.
func (o opaque) MarshalText() ([]byte, error) {
	return []byte(base64.RawStdEncoding.EncodeToString([]byte(o))), nil
}

// UnmarshalText is the inverse of MarshalText.
func (o *opaque) UnmarshalText(text []byte) error {
	raw, err := base64.RawStdEncoding.DecodeString(string(text))
	*o = opaque(raw)
	return err
}

// sealRequest encrypts the request for the hidden field `request`.
func (s *Server) sealRequest(req *AuthorizationRequest) (string, error) {
	plain, err := json.Marshal(req)
	if err != nil {
		return "", fmt.Errorf("seal authorization request: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(s.cfg.Secrets.seal(requestAEAD, plain, nil)), nil
}

// openRequest decrypts what sealRequest made. ErrRequestExpired: genuine, but
// too old; any other error: not ours.
func (s *Server) openRequest(sealed string) (*AuthorizationRequest, error) {
	raw, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil {
		return nil, errors.New("open authorization request: not base64url")
	}
	plain, _, err := s.cfg.Secrets.open(requestAEAD, raw, nil)
	if err != nil {
		return nil, fmt.Errorf("open authorization request: %w", err)
	}
	var req AuthorizationRequest
	if err := json.Unmarshal(plain, &req); err != nil {
		return nil, fmt.Errorf("open authorization request: %w", err)
	}
	if s.cfg.Now().Sub(req.CreatedAt) > requestLifetime {
		return nil, ErrRequestExpired
	}
	return &req, nil
}
