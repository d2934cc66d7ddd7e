package issuer

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	deviceCodePrefix = "gpt_dc_"
	deviceCodeTTL    = 10 * time.Minute
	deviceInterval   = 5 * time.Second // between polls, to begin with

	// A public client proves nothing, and each request is a row: so many from
	// one network.
	deviceStartLimit  = 60
	deviceStartWindow = 10 * time.Minute
	deviceStartKeys   = 10_000
)

// deviceAuthorization is the answer of the endpoint. RFC 8628 section 3.2.
type deviceAuthorization struct {
	DeviceCode              string `json:"device_code"`
	UserCode                string `json:"user_code"`
	VerificationURI         string `json:"verification_uri"`
	VerificationURIComplete string `json:"verification_uri_complete"`
	ExpiresIn               int64  `json:"expires_in"`
	Interval                int64  `json:"interval"`
}

// handleDeviceAuthorization begins an authorization for a device without a
// browser. RFC 8628 section 3.1.
func (s *Server) handleDeviceAuthorization(w http.ResponseWriter, r *http.Request) {
	params, resources, err := readForm(w, r)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	client, err := s.authenticateClient(r, params)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	if !slices.Contains(client.Grants, grantDeviceCode) {
		s.writeError(w, r, errGrantNotAllowed)
		return
	}
	scopes, resource, err := s.readScopeAndResource(client, params, resources)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	if ok, retryAfter := s.deviceStarts.Reserve(networkOf(s.origin(r).Address).String()); !ok {
		s.writeError(w, r, &throttledError{retryAfter: retryAfter})
		return
	}
	answer, err := s.startDevice(r, DeviceCode{ClientID: client.ID, Resource: resource, Scopes: scopes})
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, answer)
}

// startDevice makes both codes. A user code that is another's is made anew.
func (s *Server) startDevice(r *http.Request, code DeviceCode) (deviceAuthorization, error) {
	deviceCode := deviceCodePrefix + newDeviceCode()
	code.Digest = sha256.Sum256([]byte(deviceCode))
	for range 5 {
		userCode := newUserCode()
		code.UserCode = s.userCodeDigest(userCode)
		err := s.cfg.Store.CreateDeviceCode(r.Context(), code, deviceInterval, deviceCodeTTL)
		switch {
		case errors.Is(err, ErrExists):
			continue
		case errors.Is(err, ErrNotFound):
			return deviceAuthorization{}, errClientAuthentication
		case err != nil:
			return deviceAuthorization{}, fmt.Errorf("create device code: %w", err)
		}
		return deviceAuthorization{
			DeviceCode: deviceCode, UserCode: userCode,
			VerificationURI:         s.endpoint(devicePath),
			VerificationURIComplete: s.endpoint(devicePath) + "?user_code=" + userCode,
			ExpiresIn:               int64(deviceCodeTTL / time.Second), Interval: int64(deviceInterval / time.Second),
		}, nil
	}
	return deviceAuthorization{}, errors.New("no user code is free")
}

// newDeviceCode returns 32 random bytes in base64url.
func newDeviceCode() string {
	random := make([]byte, 32)
	_, _ = rand.Read(random) // never fails
	return base64.RawURLEncoding.EncodeToString(random)
}

// userCodeLetters are easy to tell apart, in any case, and spell no words. RFC
// 8628 section 6.1. Eight of them are 34.5 bits.
const (
	userCodeLetters = "BCDFGHJKLMNPQRSTVWXZ"
	userCodeLength  = 8
)

// newUserCode returns a code such as WDJB-MJHT.
func newUserCode() string {
	code := make([]byte, 0, userCodeLength+1)
	random := make([]byte, 1)
	for len(code) < userCodeLength+1 {
		if len(code) == userCodeLength/2 {
			code = append(code, '-')
		}
		_, _ = rand.Read(random)                                             // never fails
		if limit := 256 - 256%len(userCodeLetters); int(random[0]) < limit { // else the first letters would come more often
			code = append(code, userCodeLetters[int(random[0])%len(userCodeLetters)])
		}
	}
	return string(code)
}

// readUserCode takes a code as people type it: case, hyphens and spaces do not
// matter. RFC 8628 section 6.1.
func readUserCode(typed string) (code string, ok bool) {
	if len(typed) > 64 {
		return "", false
	}
	letters := strings.ToUpper(strings.NewReplacer("-", "", " ", "", "\u2010", "", "\u2011", "", "\u2013", "", "\t", "").Replace(typed))
	if len(letters) != userCodeLength || strings.Trim(letters, userCodeLetters) != "" {
		return "", false
	}
	return letters[:userCodeLength/2] + "-" + letters[userCodeLength/2:], true
}

// userCodeDigest is under which a user code is kept. It is so short that a plain
// hash of it could be tried out; the key is not in the database.
func (s *Server) userCodeDigest(code string) Digest {
	return Digest(mac(s.cfg.Secrets.current().userCode, []byte(code)))
}
