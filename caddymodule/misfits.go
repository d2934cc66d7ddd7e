package caddymodule

import (
	"crypto/sha256"
	"sync"
)

// maxMisfits bounds what is remembered of clients that fit no more, in entries of
// some 200 bytes.
const maxMisfits = 1000

// misfits are the clients of the database that do not fit the configuration, and
// why: each is told of once, and again when it was changed and still does not fit.
type misfits struct {
	mu   sync.Mutex
	told map[string][sha256.Size]byte // by client_id
}

// isNews reports whether nobody was told that a client with these settings does not
// fit for this reason. When there are too many, all may be told of again.
func (m *misfits) isNews(clientID string, settings []byte, why string) bool {
	digest := sha256.Sum256(append([]byte(why+"\x00"), settings...))
	m.mu.Lock()
	defer m.mu.Unlock()
	if told, ok := m.told[clientID]; ok && told == digest {
		return false
	}
	if m.told == nil || len(m.told) >= maxMisfits {
		m.told = make(map[string][sha256.Size]byte)
	}
	m.told[clientID] = digest
	return true
}

// fits forgets a client: should it fit no more later, that is news.
func (m *misfits) fits(clientID string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.told, clientID)
}
