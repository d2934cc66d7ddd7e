package dpop

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"time"
)

// noncePeriod is how long a nonce is the current one. It is accepted during the
// next period too, and during the one before, which another node's clock may
// have reached already.
const noncePeriod = 5 * time.Minute

// Nonces makes and knows nonces without keeping any: a nonce is the number of
// its period and an HMAC over it, under a key that all nodes derive from the
// root secret. RFC 9449 section 8. Safe for concurrent use.
type Nonces struct {
	keys [][]byte // the first makes, all accept
	now  func() time.Time
}

// NewNonces takes the keys, the one in use first; there must be one.
func NewNonces(now func() time.Time, keys ...[]byte) *Nonces { return &Nonces{keys, now} }

// Current is the nonce that a client shall use: 32 characters of base64url.
func (n *Nonces) Current() string { return n.make(n.keys[0], n.period()) }

// accepts reports whether the nonce is one of ours and not stale; fresh, that it
// is the current one.
func (n *Nonces) accepts(nonce string) (ok, fresh bool) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(nonce)
	if err != nil || len(raw) != 8+16 {
		return false, false
	}
	period, current := binary.BigEndian.Uint64(raw), n.period()
	if period+1 < current || period > current+1 {
		return false, false
	}
	for i, key := range n.keys {
		if hmac.Equal([]byte(n.make(key, period)), []byte(nonce)) {
			return true, i == 0 && period >= current
		}
	}
	return false, false
}

func (n *Nonces) period() uint64 { return uint64(n.now().Unix()) / uint64(noncePeriod/time.Second) }

func (n *Nonces) make(key []byte, period uint64) string {
	number := binary.BigEndian.AppendUint64(nil, period)
	h := hmac.New(sha256.New, key)
	h.Write(number)
	return base64.RawURLEncoding.EncodeToString(append(number, h.Sum(nil)[:16]...))
}
