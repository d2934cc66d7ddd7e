package issuer

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strings"

	"github.com/google/uuid"
)

const (
	refreshTokenPrefix  = "gpt_rt_"
	refreshTokenVersion = 1
	// version, session id, counter, key id
	refreshTokenHead = 1 + 16 + 8 + keyIDSize
	// adoptedTokenDigits: tokens of the replaced system are 48 bytes in hex.
	adoptedTokenDigits = 96
)

// refreshToken is an authenticated counter: it names a session and how often
// that session was refreshed. The row holds the counter, so that no table of
// tokens grows; the HMAC key is not in the database, so that a leaked database
// forges nothing.
type refreshToken struct {
	SessionID string
	Counter   int64
}

// mintRefreshToken is deterministic: a retried refresh gets the very same
// successor.
func (s *RootSecrets) mintRefreshToken(t refreshToken) (string, error) {
	session, err := uuid.Parse(t.SessionID)
	if err != nil {
		return "", err
	}
	keys := s.current()
	head := append([]byte{refreshTokenVersion}, session[:]...)
	head = binary.BigEndian.AppendUint64(head, uint64(t.Counter))
	head = append(head, keys.id[:]...)
	return refreshTokenPrefix + base64.RawURLEncoding.EncodeToString(append(head, mac(keys.refresh, head)...)), nil
}

// readRefreshToken returns what an authentic token says. It costs no look at
// the database: garbage ends here.
func (s *RootSecrets) readRefreshToken(token string) (refreshToken, bool) {
	encoded, ok := strings.CutPrefix(token, refreshTokenPrefix)
	if !ok || len(encoded) != base64.RawURLEncoding.EncodedLen(refreshTokenHead+sha256.Size) {
		return refreshToken{}, false
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || len(raw) != refreshTokenHead+sha256.Size || raw[0] != refreshTokenVersion {
		return refreshToken{}, false
	}
	head := raw[:refreshTokenHead]
	keys := s.byID(head[refreshTokenHead-keyIDSize:])
	if keys == nil || !hmac.Equal(mac(keys.refresh, head), raw[refreshTokenHead:]) {
		return refreshToken{}, false
	}
	counter := binary.BigEndian.Uint64(head[17:])
	if counter > 1<<62 {
		return refreshToken{}, false
	}
	return refreshToken{SessionID: uuid.UUID(head[1:17]).String(), Counter: int64(counter)}, true
}

// adoptedDigest returns the digest under which the replaced system stored a
// token, if token has its form: gpt_rt_ and 96 lower-case hex digits.
func adoptedDigest(token string) (Digest, bool) {
	digits, ok := strings.CutPrefix(token, refreshTokenPrefix)
	if !ok || len(digits) != adoptedTokenDigits || strings.Trim(digits, "0123456789abcdef") != "" {
		return Digest{}, false
	}
	return sha256.Sum256([]byte(token)), true
}
