package issuer

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"
	"go.uber.org/zap"
)

// errCode: the code is wrong, or was used before. Nobody learns which.
var errCode = errors.New("the code is wrong or was used before")

// checkSecondFactor takes a code, or a recovery code, of the user. The error is
// errCode, a *throttledError of the address, a *TooManyAttempts of the user, or what
// the store said.
func (s *Server) checkSecondFactor(r *http.Request, userID, code string) error {
	// 1. Count the attempt as failed before its outcome is known: by address on this
	// node, and that at a code by user on all. SECURITY-CASES A-32.
	address := networkOf(s.cfg.ClientAddress(r))
	key := throttleKey(address, "code\x00"+userID)
	if ok, wait := s.reserveLogin(key, address); !ok {
		s.audit(r, "sign-in refused: too many failures", zap.String("user_id", userID))
		return &throttledError{retryAfter: wait}
	}
	// 2. What it is.
	code = strings.ToUpper(strings.NewReplacer(" ", "", "-", "").Replace(code))
	var err error
	if len(code) == recoveryCodeLength {
		err = s.cfg.Store.UseRecoveryCode(r.Context(), userID, recoveryDigest(userID, code), s.origin(r))
	} else {
		err = s.tryCode(r, userID, code)
	}
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrReplayed) {
		return errCode
	}
	if err == nil {
		s.password.perAccount.Reset(key)
		s.releaseAddress(address)
	}
	return err
}

func (s *Server) tryCode(r *http.Request, userID, code string) error {
	factor, err := s.cfg.Store.TrySecondFactor(r.Context(), userID, otpLately, otpDaily)
	if err != nil {
		if many := (*TooManyAttempts)(nil); errors.As(err, &many) {
			s.audit(r, "sign-in refused: too many codes", zap.String("user_id", userID), zap.Duration("for", many.For))
		}
		return err
	}
	return s.useCode(r, userID, factor, code)
}

func (s *Server) useCode(r *http.Request, userID string, factor SecondFactor, code string) error {
	secret, current, err := s.cfg.Secrets.open(secondFactorAEAD, factor.Sealed, []byte(userID))
	if err != nil {
		s.logPageError(r, fmt.Errorf("second factor of user %s: %w; to let the user in: caddy oauth user reset --remove-factors", userID, err))
		return errCode
	}
	step, ok := s.stepOf(secret, code)
	if !ok {
		return errCode
	}
	var resealed []byte
	if !current { // so that the old root secret can go
		resealed = s.cfg.Secrets.seal(secondFactorAEAD, secret, []byte(userID))
	}
	return s.cfg.Store.UseSecondFactor(r.Context(), userID, step, resealed)
}

// stepOf returns the time step that the code is of, by the clock that all nodes
// share. RFC 6238 section 4.2.
func (s *Server) stepOf(secret []byte, code string) (step int64, ok bool) {
	now := s.cfg.Tokens.Issuing().Unix() / otpPeriod
	text := base32Text.EncodeToString(secret)
	for _, at := range []int64{now - 1, now, now + 1} {
		want, err := hotp.GenerateCodeCustom(text, uint64(at), hotp.ValidateOpts{Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1})
		if err == nil && subtle.ConstantTimeCompare([]byte(want), []byte(code)) == 1 {
			return at, true
		}
	}
	return 0, false
}

// recoveryDigest is what is stored of a recovery code.
func recoveryDigest(userID, code string) Digest {
	return sha256.Sum256([]byte("recovery\x00" + userID + "\x00" + code))
}

// newRecoveryCodes returns codes as people read them, and their digests.
func newRecoveryCodes(userID string) (codes []string, digests []Digest) {
	for range recoveryCodes {
		random := make([]byte, recoveryCodeLength*5/8)
		rand.Read(random)
		code := base32Text.EncodeToString(random)
		digests = append(digests, recoveryDigest(userID, code))
		codes = append(codes, code[:4]+"-"+code[4:8]+"-"+code[8:12]+"-"+code[12:])
	}
	return codes, digests
}
