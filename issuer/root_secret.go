package issuer

// RootSecrets derives every symmetric key of the server from the root secret
// by HKDF-SHA-256 (RFC 5869), each for one purpose. Old secrets open and
// verify, the first one seals and signs.
type RootSecrets struct{}

// NewRootSecrets takes the current secret and any old ones, each at least 32
// bytes of text or random bytes. The error names the position, never the secret.
func NewRootSecrets(current []byte, old ...[]byte) (*RootSecrets, error) { return &RootSecrets{}, nil }

// Fingerprints returns a public name for each secret, the current one first:
// hex of 16 bytes from which nothing can be derived. The database remembers
// it, so that a node with another secret refuses to start.
func (s *RootSecrets) Fingerprints() []string { return nil }
