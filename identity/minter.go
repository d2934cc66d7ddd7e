package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// Signer signs with the key in use, whose kid is SignerID. The type becomes `typ`.
type Signer interface {
	SignerID() string
	SignIdentity(payload []byte) (string, error)
}

const (
	// maxKept tokens are at hand for the same request, of at most maxKeptSize bytes
	// of claims each: some 8 MiB. A longer one is signed every time, so that paths
	// that somebody made up fill no memory.
	maxKept     = 4096
	maxKeptSize = 1 << 10
)

// Minter makes identity tokens for the upstream of one gate. Safe for concurrent
// use.
type Minter struct {
	issuer, audience string
	now              func() time.Time
	kept             *lru.Cache[string, keptToken]
}

// keptToken is a token that may be sent again until then.
type keptToken struct {
	token string
	until time.Time
}

// NewMinter returns a minter of tokens with this `iss` and `aud`.
func NewMinter(issuer, audience string, now func() time.Time) (*Minter, error) {
	if issuer == "" || audience == "" {
		return nil, errors.New("identity: issuer or audience is missing")
	}
	kept, err := lru.New[string, keptToken](maxKept)
	if err != nil {
		return nil, err
	}
	return &Minter{issuer, audience, now, kept}, nil
}

// Token returns a token for the request as it stands, which is what must be
// forwarded, and for this caller. What is kept is found by all that the token
// says and by the key that signs: a caller whose scopes have changed, or a key
// that was replaced, has no kept token.
func (m *Minter) Token(signer Signer, r *http.Request, c *Caller) (string, error) {
	said, err := json.Marshal(claims{m.issuer, m.audience, c.UserID, c.ClientID, c.SessionID, c.Scopes, c.Claims, targetOf(r)})
	if err != nil {
		return "", fmt.Errorf("identity token: %w", err)
	}
	key, now := "", m.now()
	if len(said) <= maxKeptSize {
		key = signer.SignerID() + string(said)
		if kept, ok := m.kept.Get(key); ok && now.Before(kept.until) {
			return kept.token, nil
		}
	}
	payload := fmt.Appendf(said[:len(said)-1], `,"iat":%d,"exp":%d}`, now.Unix(), now.Add(lifetime).Unix())
	token, err := signer.SignIdentity(payload)
	if err != nil {
		return "", fmt.Errorf("identity token: %w", err)
	}
	if key != "" {
		m.kept.Add(key, keptToken{token, now.Add(reuse)})
	}
	return token, nil
}
