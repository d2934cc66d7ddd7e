package issuer

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"image/png"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/pquerna/otp"
	"go.uber.org/zap"
)

// enrolment is a secret that the user has not shown a code of yet.
type enrolment struct {
	UserID    string
	Secret    []byte
	StartedAt time.Time
}

const enrolmentPurpose = "second factor enrolment"

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
