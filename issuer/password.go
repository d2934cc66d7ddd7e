package issuer

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"
)

// Bounds of a password, in bytes after normalization. The lower one follows
// NIST SP 800-63B section 3.1.1.2; the upper one bounds the work of a request.
const (
	MinPasswordBytes = 8
	MaxPasswordBytes = 1024
)

// maxEmailBytes is the longest address SMTP can carry. RFC 5321 section 4.5.3.1.3.
const maxEmailBytes = 254

// HashPassword hashes the password of a new or changed account with argon2id
// (RFC 9106; 19 MiB, 2 passes, 1 lane) and a random salt, and returns a PHC
// string such as "$argon2id$v=19$m=19456,t=2,p=1$<salt>$<hash>". The password
// is brought to Unicode normal form C first, as it is at sign-in, because
// keyboards differ in how they compose an "é". The error says what is wrong
// with the password and never contains it.
func HashPassword(ctx context.Context, password string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	password = norm.NFC.String(password)
	switch {
	case len(password) < MinPasswordBytes:
		return "", fmt.Errorf("the password is too short: at least %d bytes", MinPasswordBytes)
	case len(password) > MaxPasswordBytes:
		return "", fmt.Errorf("the password is too long: at most %d bytes", MaxPasswordBytes)
	case !isText(password):
		return "", errors.New("the password is not text")
	}
	h := passwordHash{argon2Cost: defaultArgon2Cost, salt: make([]byte, 16)}
	rand.Read(h.salt)
	h.sum = h.compute(password, 32)
	return h.String(), nil
}

// NormalizeEmail returns the address in the one form that accounts are kept
// and throttled under: without surrounding space, in normal form C, lower case.
// It checks only what no address can be without; whether mail arrives there is
// for the owner to know.
func NormalizeEmail(address string) (string, error) {
	if !utf8.ValidString(address) {
		return "", errors.New("the email address is not UTF-8 text")
	}
	address = strings.ToLower(norm.NFC.String(strings.TrimSpace(address)))
	local, domain, found := strings.Cut(address, "@")
	switch {
	case !found || local == "" || domain == "" || strings.Contains(domain, "@"):
		return "", errors.New("not an email address: want name@domain")
	case len(address) > maxEmailBytes:
		return "", fmt.Errorf("the email address is longer than %d bytes", maxEmailBytes)
	case strings.ContainsFunc(address, notInEmail):
		return "", errors.New("the email address contains a space or a control character")
	}
	return address, nil
}

// notInEmail reports whether c is a space, a control or a formatting character,
// such as one that reverses the text around it.
func notInEmail(c rune) bool {
	return unicode.IsSpace(c) || unicode.IsControl(c) || unicode.Is(unicode.Cf, c)
}

// argon2Cost is what one argon2id computation takes.
type argon2Cost struct {
	memory uint32 // KiB
	time   uint32 // passes
	lanes  uint8
}

// defaultArgon2Cost is the OWASP recommendation for argon2id.
var defaultArgon2Cost = argon2Cost{memory: 19 * 1024, time: 2, lanes: 1}

// passwordHash is a parsed PHC string.
type passwordHash struct {
	argon2Cost
	salt, sum []byte
}

// Bounds of what a stored hash may ask for. A hash comes from our own database,
// but one imported from elsewhere, or written by someone who may only write,
// must not take the memory of the node.
const (
	maxArgon2Memory = 64 * 1024 // KiB
	maxArgon2Time   = 10
	maxArgon2Lanes  = 4
)

// errPasswordHash is a stored hash that this server does not verify.
var errPasswordHash = errors.New("the stored password hash is not an argon2id PHC string within bounds")

// parsePasswordHash reads "$argon2id$v=19$m=…,t=…,p=…$salt$sum".
func parsePasswordHash(phc string) (passwordHash, error) {
	fields := strings.Split(phc, "$")
	if len(fields) != 6 || fields[0] != "" || fields[1] != "argon2id" || fields[2] != "v=19" {
		return passwordHash{}, errPasswordHash
	}
	var h passwordHash
	if _, err := fmt.Sscanf(fields[3], "m=%d,t=%d,p=%d", &h.memory, &h.time, &h.lanes); err != nil {
		return passwordHash{}, errPasswordHash
	}
	var saltErr, sumErr error
	h.salt, saltErr = base64.RawStdEncoding.Strict().DecodeString(fields[4])
	h.sum, sumErr = base64.RawStdEncoding.Strict().DecodeString(fields[5])
	switch {
	case saltErr != nil, sumErr != nil,
		h.lanes < 1, h.lanes > maxArgon2Lanes,
		h.time < 1, h.time > maxArgon2Time,
		h.memory < 8*uint32(h.lanes), h.memory > maxArgon2Memory,
		len(h.salt) < 8, len(h.salt) > 64,
		len(h.sum) < 16, len(h.sum) > 64,
		h.String() != phc: // one hash, one spelling: Sscanf stops early and skips signs
		return passwordHash{}, errPasswordHash
	}
	return h, nil
}

func (h passwordHash) String() string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.memory, h.time, h.lanes,
		base64.RawStdEncoding.EncodeToString(h.salt), base64.RawStdEncoding.EncodeToString(h.sum))
}

func (h passwordHash) compute(password string, size int) []byte {
	return argon2.IDKey([]byte(password), h.salt, h.time, h.memory, h.lanes, uint32(size))
}

// Bounds of the verifier. A computation takes a core for tens of milliseconds
// and 19 MiB, so that four at once are 76 MiB. Whoever would wait longer than
// passwordQueueWait is better told to come again.
const (
	maxPasswordSlots  = 4
	passwordQueue     = 16
	passwordQueueWait = 3 * time.Second
)

// errPasswordBusy: the queue is full; come again.
var errPasswordBusy = errors.New("too many passwords are being checked")

// passwordVerifier checks passwords, a few at once.
type passwordVerifier struct {
	slots    chan struct{} // taken while computing
	tickets  chan struct{} // taken while computing or waiting to
	nobody   passwordHash  // stands in for an account that does not exist
	computed atomic.Int64  // computations so far
}

func newPasswordVerifier() *passwordVerifier {
	slots := min(runtime.GOMAXPROCS(0), maxPasswordSlots)
	v := &passwordVerifier{
		slots:   make(chan struct{}, slots),
		tickets: make(chan struct{}, slots+passwordQueue),
		nobody:  passwordHash{argon2Cost: defaultArgon2Cost, salt: make([]byte, 16), sum: make([]byte, 32)},
	}
	rand.Read(v.nobody.salt)
	rand.Read(v.nobody.sum)
	return v
}

// Verify reports whether password belongs to the stored hash. With an empty
// hash it takes the same work and reports false, so that the time of an answer
// does not tell which accounts exist. It returns errPasswordBusy when too many
// wait, errPasswordHash, after the same work, for a hash it cannot use, and the
// context's error when the caller went away.
func (v *passwordVerifier) Verify(ctx context.Context, phc, password string) (bool, error) {
	h, parseErr := v.nobody, error(nil)
	if phc != "" {
		if h, parseErr = parsePasswordHash(phc); parseErr != nil {
			h = v.nobody
		}
	}
	release, err := v.acquire(ctx)
	if err != nil {
		return false, err
	}
	defer release()

	password = norm.NFC.String(password)
	v.computed.Add(1)
	equal := subtle.ConstantTimeCompare(h.compute(password, len(h.sum)), h.sum) == 1
	return equal && phc != "" && parseErr == nil, parseErr
}

// acquire waits in the queue for a slot.
func (v *passwordVerifier) acquire(ctx context.Context) (release func(), err error) {
	select {
	case v.tickets <- struct{}{}:
	default:
		return nil, errPasswordBusy
	}
	ctx, cancel := context.WithTimeoutCause(ctx, passwordQueueWait, errPasswordBusy)
	defer cancel()
	select {
	case v.slots <- struct{}{}:
		return func() { <-v.slots; <-v.tickets }, nil
	case <-ctx.Done():
		<-v.tickets
		return nil, context.Cause(ctx)
	}
}
