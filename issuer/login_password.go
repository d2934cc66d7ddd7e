package issuer

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"go.uber.org/zap"
)

// Failed sign-ins that one address may have within the window: for one account,
// and over all accounts. The first stops guessing at one password, the second
// trying one password on many accounts. Counting per account alone would let
// anyone lock a user out. SECURITY-CASES A-32.
const (
	loginFailureWindow    = 5 * time.Minute
	accountFailureLimit   = 5
	addressFailureLimit   = 30
	throttledAccountLimit = 16384 // keys kept; with the next line at most some 12 MiB
	throttledAddressLimit = 8192
)

// passwordLogin is the state of `login password` on this node.
type passwordLogin struct {
	verifier   *passwordVerifier
	perAccount *throttle // account and address
	perAddress *throttle
}

func newPasswordLogin(now func() time.Time) *passwordLogin {
	return &passwordLogin{
		verifier:   newPasswordVerifier(),
		perAccount: newThrottle(accountFailureLimit, loginFailureWindow, throttledAccountLimit, now),
		perAddress: newThrottle(addressFailureLimit, loginFailureWindow, throttledAddressLimit, now),
	}
}

// throttledError: too many failures; come again after.
type throttledError struct {
	retryAfter time.Duration
	rate       bool   // not of failures: of an EndpointRate
	grant      string // that it was about; empty: of all
}

func (e *throttledError) Error() string {
	return fmt.Sprintf("too many failed sign-ins; again in %s", e.retryAfter.Round(time.Second))
}

// authenticate returns the user whom email and password name. It returns
// ErrNotFound for an unknown account, a wrong password and a disabled user
// alike, after the same work; *throttledError, without looking at the password;
// errPasswordBusy; or what the store said.
func (s *Server) authenticate(r *http.Request, email, password string) (User, error) {
	// 1. Count the attempt as failed before its outcome is known.
	origin := s.origin(r)
	email, invalid := NormalizeEmail(email)
	address := networkOf(origin.Address)
	account := throttleKey(address, email)
	if ok, wait := s.reserveLogin(account, address); !ok {
		s.audit(r, "sign-in refused: too many failures")
		return User{}, &throttledError{retryAfter: wait}
	}

	// 2. Look at the password, of nobody if there is no such account.
	var user User
	var err error
	if invalid == nil {
		user, err = s.cfg.Store.FindUserByEmail(r.Context(), email)
		if errors.Is(err, ErrNotFound) {
			user, err = User{}, nil
		}
	}
	match := false
	if err == nil {
		match, err = s.password.verifier.Verify(r.Context(), user.PasswordHash, password)
	}
	if errors.Is(err, errPasswordHash) {
		// The answer is the one for a wrong password; the owner reads why.
		s.logPageError(r, fmt.Errorf("user %s: %w", user.ID, err))
		err = nil
	}

	// 3. Settle the count.
	switch {
	case err != nil: // no verdict, so no failure
		s.password.perAccount.Release(account)
		s.releaseAddress(address)
		return User{}, err
	case !match || user.Disabled:
		s.audit(r, "sign-in failed", zap.String("user_id", user.ID))
		return User{}, ErrNotFound
	}
	// The address keeps its other failures: else whoever has an account could
	// guess at others for ever, signing in between.
	s.password.perAccount.Reset(account)
	s.releaseAddress(address)
	return user, nil
}

// reserveLogin counts an attempt against account and address, or reports
// after how long it may come again.
func (s *Server) reserveLogin(account string, address netip.Prefix) (ok bool, retryAfter time.Duration) {
	if address.IsValid() {
		if ok, retryAfter = s.password.perAddress.Reserve(address.String()); !ok {
			return false, retryAfter
		}
	}
	if ok, retryAfter = s.password.perAccount.Reserve(account); !ok {
		s.releaseAddress(address)
	}
	return ok, retryAfter
}

func (s *Server) releaseAddress(address netip.Prefix) {
	if address.IsValid() {
		s.password.perAddress.Release(address.String())
	}
}

// networkOf returns what counts as one address: an IPv4 address, or the /64
// that one IPv6 subscriber has all of. It is invalid when the address is not
// known (a Unix socket): strangers must not share one count.
func networkOf(address netip.Addr) netip.Prefix {
	address = address.Unmap()
	bits := 64
	if address.Is4() {
		bits = 32
	}
	network, _ := address.WithZone("").Prefix(bits)
	return network
}

// throttleKey has a fixed length, whatever was typed.
func throttleKey(address netip.Prefix, email string) string {
	sum := sha256.Sum256([]byte(address.String() + "\x00" + email))
	return string(sum[:])
}

// ceilSeconds is for Retry-After: whole seconds, at least one.
func ceilSeconds(d time.Duration) int {
	return max(1, int((d+time.Second-1)/time.Second))
}
