package issuer

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"image/png"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"
	"go.uber.org/zap"
)

// SecondFactorMode says whether users of `login password` have a second factor.
type SecondFactorMode string

const (
	SecondFactorOff      SecondFactorMode = ""
	SecondFactorOptional SecondFactorMode = "optional" // users may set one up
	SecondFactorRequired SecondFactorMode = "required" // nobody signs in by password alone
)

const (
	secondFactorPath = "/oauth/second_factor"

	// otpMethod is what gpt_logins calls a sign-in with password and code.
	otpMethod = "password+otp"

	// otpPeriod is how long a code is shown, in seconds. RFC 6238 section 5.2. One
	// period to either side counts too: clocks differ, and people type slowly.
	otpPeriod = 30

	// recoveryCodes is how many a user has; each holds 80 random bits, in base32.
	recoveryCodes, recoveryCodeLength = 10, 16
)

// Attempts at a code that one user has, from wherever they come: who tries codes knows
// the password already. The first stops a run of guesses, the second patience: three
// codes in a million count, so that a guesser has one chance in thirty a year. Those
// of one address are bounded besides. Recovery codes are not counted: nobody guesses
// 80 bits, and whoever is kept from the codes by a guesser gets in with one.
var (
	otpLately = AttemptBound{Limit: 10, Window: 15 * time.Minute}
	otpDaily  = AttemptBound{Limit: 30, Window: 24 * time.Hour}
)

var base32Text = base32.StdEncoding.WithPadding(base32.NoPadding)

// pendingLogin is a password that was right, of a user who has yet to show the
// second factor. It travels sealed in the form: it is no login, it takes no row,
// and it holds only for the authorization request, and with it the browser, that
// it was made for. SECURITY-CASES A-33.
type pendingLogin struct {
	RequestID string
	Email     string
	UserID    string
	Password  Digest // of the stored hash: a changed password ends it
	StartedAt time.Time
}

const (
	pendingPurpose = "second factor"

	// pendingLifetime is how long somebody may look for their device.
	pendingLifetime = 5 * time.Minute
)

// enrolment is a secret that the user has not shown a code of yet.
type enrolment struct {
	UserID    string
	Secret    []byte
	StartedAt time.Time
}

const enrolmentPurpose = "second factor enrolment"

func (s *Server) sealJSON(purpose string, value any) (string, error) {
	plain, err := json.Marshal(value)
	if err != nil {
		return "", fmt.Errorf("seal %s: %w", purpose, err)
	}
	return base64.RawURLEncoding.EncodeToString(s.cfg.Secrets.seal(requestAEAD, plain, []byte(purpose))), nil
}

func (s *Server) openJSON(purpose, sealed string, value any) bool {
	raw, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil {
		return false
	}
	plain, _, err := s.cfg.Secrets.open(requestAEAD, raw, []byte(purpose))
	return err == nil && json.Unmarshal(plain, value) == nil
}

// codeForm is the page that asks for a code.
type codeForm struct {
	Client, Action, Request, Pending string
	Problem                          string
}

// afterPassword goes on once the password was right: to the second factor, to
// setting one up, or to a login.
func (s *Server) afterPassword(w http.ResponseWriter, r *http.Request, req *AuthorizationRequest, client *Client, user User) error {
	if s.cfg.SecondFactor == SecondFactorOff {
		return s.startLogin(w, r, req, user, passwordMethod)
	}
	_, err := s.cfg.Store.FindSecondFactor(r.Context(), user.ID)
	missing := errors.Is(err, ErrNotFound)
	switch {
	case err != nil && !missing:
		return fmt.Errorf("find second factor: %w", err)
	case missing && s.cfg.SecondFactor == SecondFactorOptional:
		return s.startLogin(w, r, req, user, passwordMethod)
	}
	sealed, err := s.sealRequest(req)
	if err != nil {
		return err
	}
	pending, err := s.sealJSON(pendingPurpose, pendingLogin{req.ID, user.Email, user.ID, sha256.Sum256([]byte(user.PasswordHash)), s.cfg.Now()})
	if err != nil {
		return err
	}
	if missing {
		return s.showEnrolment(w, r, enrolForm{Action: s.endpoint(secondFactorPath), Request: sealed, Pending: pending}, user.ID, user.Email)
	}
	s.showCode(w, r, http.StatusOK, client, codeForm{Request: sealed, Pending: pending})
	return nil
}

func (s *Server) showCode(w http.ResponseWriter, r *http.Request, status int, client *Client, page codeForm) {
	page.Action = s.endpoint(secondFactorPath)
	if client != nil {
		page.Client = displayName(client)
	}
	s.writePage(w, r, status, codePage, page)
}

// handleSecondFactor answers POST /oauth/second_factor {request, pending, code, and
// where one is being set up enrolment}.
func (s *Server) handleSecondFactor(w http.ResponseWriter, r *http.Request) {
	// 1. Our form, this browser, and a password that was right a moment ago and still
	// is.
	form, ok := s.readPageForm(w, r)
	if !ok {
		return
	}
	req, client, ok := s.resumeSignIn(w, r, form.Get("request"))
	if !ok {
		return
	}
	user, err := s.openPending(r, req, form.Get("pending"))
	if errors.Is(err, ErrNotFound) {
		s.showSignIn(w, r, http.StatusOK, req, client, signIn{Problem: s.words(r).text("passkey.late")})
		return
	}
	if err != nil {
		s.unavailablePage(w, r, "sign in", err)
		return
	}
	// 2. A new secret, or a code of the one there is.
	if form.Has("enrolment") {
		s.enrolAtSignIn(w, r, req, user, form)
		return
	}
	err = s.checkSecondFactor(r, user.ID, form.Get("code"))
	if err == nil {
		err = s.startLogin(w, r, req, user, otpMethod)
	}
	s.tallyFailedLogin(otpMethod, err)
	page := codeForm{Request: form.Get("request"), Pending: form.Get("pending")}
	var throttled *throttledError
	var many *TooManyAttempts
	switch {
	case err == nil:
	case errors.As(err, &throttled):
		w.Header().Set("Retry-After", fmt.Sprint(ceilSeconds(throttled.retryAfter)))
		page.Problem = s.words(r).text("signin.throttled", s.words(r).wait(throttled.retryAfter))
		s.showCode(w, r, http.StatusTooManyRequests, client, page)
	case errors.As(err, &many):
		w.Header().Set("Retry-After", fmt.Sprint(ceilSeconds(many.For)))
		page.Problem = s.words(r).text("code.many", s.words(r).wait(many.For))
		s.showCode(w, r, http.StatusTooManyRequests, client, page)
	case errors.Is(err, errCode):
		s.audit(r, "sign-in failed", zap.String("user_id", user.ID), zap.String("method", otpMethod), zap.Error(err))
		page.Problem = s.words(r).text("code.wrong")
		s.showCode(w, r, http.StatusOK, client, page)
	default:
		s.unavailablePage(w, r, "sign in", err)
	}
}

// openPending returns the user whose password was right for this request.
// ErrNotFound: too long ago, for another request, or it has changed since.
func (s *Server) openPending(r *http.Request, req *AuthorizationRequest, sealed string) (User, error) {
	var pending pendingLogin
	if !s.openJSON(pendingPurpose, sealed, &pending) || pending.RequestID != req.ID || s.cfg.Now().Sub(pending.StartedAt) > pendingLifetime {
		return User{}, ErrNotFound
	}
	user, err := s.cfg.Store.FindUserByEmail(r.Context(), pending.Email)
	if err != nil {
		return User{}, err
	}
	if now := sha256.Sum256([]byte(user.PasswordHash)); user.ID != pending.UserID || user.Disabled || !hmac.Equal(now[:], pending.Password[:]) {
		return User{}, ErrNotFound
	}
	return user, nil
}

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

// enrolForm is the page on which a second factor is set up.
type enrolForm struct {
	Action           string
	Request, Pending string // at sign-in
	Token            string // from the account page
	Enrolment        string
	Picture          template.URL // QR code, PNG
	Secret           string
	Problem          string
}

// showEnrolment shows a new secret, or the one that page.Enrolment holds.
func (s *Server) showEnrolment(w http.ResponseWriter, r *http.Request, page enrolForm, userID, name string) error {
	e := enrolment{UserID: userID, Secret: make([]byte, 20), StartedAt: s.cfg.Now()} // 160 bits: RFC 4226 section 4
	rand.Read(e.Secret)
	if page.Enrolment == "" || !s.openJSON(enrolmentPurpose, page.Enrolment, &e) {
		var err error
		if page.Enrolment, err = s.sealJSON(enrolmentPurpose, e); err != nil {
			return err
		}
	}
	service := s.pages.name
	if service == "" {
		service = s.host
	}
	text := base32Text.EncodeToString(e.Secret)
	link := "otpauth://totp/" + url.PathEscape(service+":"+name) + "?" + strings.ReplaceAll(url.Values{"secret": {text}, "issuer": {service}}.Encode(), "+", "%20")
	picture, err := qrCode(link)
	if err != nil {
		return err
	}
	page.Picture = picture
	for i := 0; i < len(text); i += 4 {
		page.Secret += text[i:i+4] + " "
	}
	page.Secret = strings.TrimSpace(page.Secret)
	s.writePage(w, r, http.StatusOK, enrolPage, page)
	return nil
}

// qrCode draws a link as a picture that stands in the page itself.
func qrCode(link string) (template.URL, error) {
	key, err := otp.NewKeyFromURL(link)
	if err != nil {
		return "", fmt.Errorf("QR code: %w", err)
	}
	picture, err := key.Image(240, 240)
	if err != nil {
		return "", fmt.Errorf("QR code: %w", err)
	}
	var data bytes.Buffer
	if err := png.Encode(&data, picture); err != nil {
		return "", fmt.Errorf("QR code: %w", err)
	}
	return template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(data.Bytes())), nil
}

// enrol keeps the secret of the form, once the user has shown a code of it, and
// returns the recovery codes. login is the one at which they did. errCode; ErrExists: there is a second factor already; ErrNotFound: the form is
// too old, or another user's.
func (s *Server) enrol(r *http.Request, userID string, form url.Values, login RenewedLogin) ([]string, error) {
	var e enrolment
	if !s.openJSON(enrolmentPurpose, form.Get("enrolment"), &e) || e.UserID != userID || s.cfg.Now().Sub(e.StartedAt) > requestLifetime {
		return nil, ErrNotFound
	}
	step, ok := s.stepOf(e.Secret, strings.ReplaceAll(form.Get("code"), " ", ""))
	if !ok {
		return nil, errCode
	}
	codes, digests := newRecoveryCodes(userID)
	factor := SecondFactor{Sealed: s.cfg.Secrets.seal(secondFactorAEAD, e.Secret, []byte(userID)), Step: step}
	if err := s.cfg.Store.SetSecondFactor(r.Context(), userID, factor, digests, login, s.origin(r)); err != nil {
		return nil, err
	}
	s.audit(r, "second factor added", zap.String("user_id", userID))
	return codes, nil
}

// recoveryView shows recovery codes, this once.
type recoveryView struct {
	Codes []string
	Next  string
}

func (s *Server) enrolAtSignIn(w http.ResponseWriter, r *http.Request, req *AuthorizationRequest, user User, form url.Values) {
	codes, err := s.enrol(r, user.ID, form, RenewedLogin{})
	switch {
	case errors.Is(err, errCode):
		page := enrolForm{Action: s.endpoint(secondFactorPath), Request: form.Get("request"), Pending: form.Get("pending"), Enrolment: form.Get("enrolment"), Problem: s.words(r).text("code.wrong")}
		err = s.showEnrolment(w, r, page, user.ID, user.Email)
	case errors.Is(err, ErrExists), errors.Is(err, ErrNotFound): // in another tab; who signs in is asked for it
		s.goOn(w, r, req)
		return
	case err == nil:
		next, cookieErr := s.createLogin(w, r, req, user, otpMethod)
		if err = cookieErr; err == nil {
			s.writePage(w, r, http.StatusOK, recoveryPage, recoveryView{Codes: codes, Next: next})
		}
	}
	if err != nil {
		s.unavailablePage(w, r, "set up second factor", err)
	}
}
