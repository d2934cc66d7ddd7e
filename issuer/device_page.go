package issuer

import (
	"errors"
	"net/http"
	"slices"
	"strconv"

	"github.com/google/uuid"
	"go.uber.org/zap"
)

const devicePath = "/oauth/device"

// Five wrong codes from one network in ten minutes, while a code lives that
// long: of 20^8 codes that finds one with a chance of 2^-32. RFC 8628 section
// 5.1.
const (
	userCodeFailureLimit  = 5
	userCodeFailureWindow = deviceCodeTTL
	userCodeFailureKeys   = 10_000
)

// deviceForm is what the page shows.
type deviceForm struct {
	Action, Code, Problem string
	Reference             string // finds the log line
}

// connectedView is what the page shows that ends an approval.
type connectedView struct {
	Client          string
	Scopes          []string // in words
	Apps, Reference string
}

// handleDevice answers GET and POST /oauth/device. GET shows the form, filled
// in where the link brought a code; it never goes on by itself, so that nobody
// is led past the page by a link (RFC 8628 section 5.4). POST takes the code
// and goes on to signing in and to the consent page, which alone decides.
func (s *Server) handleDevice(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		code, _ := readUserCode(r.URL.Query().Get("user_code"))
		s.showDevice(w, r, http.StatusOK, deviceForm{Code: code})
		return
	}
	form, ok := s.readPageForm(w, r)
	if !ok {
		return
	}
	// 1. What cannot be a code is no guess.
	code, ok := readUserCode(form.Get("user_code"))
	if !ok {
		s.showDevice(w, r, http.StatusOK, deviceForm{Problem: s.words(r).text("device.wrong")})
		return
	}
	// 2. The code, within the bound of guesses.
	network := networkOf(s.origin(r).Address).String()
	if ok, retryAfter := s.userCodeFailures.Reserve(network); !ok {
		s.audit(r, "user code refused: too many failures")
		w.Header().Set("Retry-After", strconv.Itoa(ceilSeconds(retryAfter)))
		s.showDevice(w, r, http.StatusTooManyRequests, deviceForm{Code: code, Problem: s.words(r).text("device.throttled", s.words(r).wait(retryAfter))})
		return
	}
	device, err := s.cfg.Store.EnterUserCode(r.Context(), s.userCodeDigest(code))
	if errors.Is(err, ErrNotFound) { // unknown, decided, expired, burnt: one answer
		s.showDevice(w, r, http.StatusOK, deviceForm{Code: code, Problem: s.words(r).text("device.wrong")})
		return
	}
	s.userCodeFailures.Release(network)
	if err != nil {
		s.unavailablePage(w, r, "enter user code", err)
		return
	}
	client, err := s.cfg.Clients.Client(r.Context(), device.ClientID)
	switch {
	case errors.Is(err, ErrNotFound) || err == nil && !slices.Contains(client.Grants, grantDeviceCode):
		s.errorWords(w, r, http.StatusBadRequest, "gone")
		return
	case err != nil:
		s.unavailablePage(w, r, "find client", err)
		return
	}
	// 3. The person, and what is asked: as for any authorization.
	s.continueAuthorization(w, r, &AuthorizationRequest{
		ID: uuid.NewString(), ClientID: client.ID, UserCode: code, Scopes: device.Scopes, Resource: device.Resource,
		CreatedAt: s.cfg.Now(), BrowserDigest: s.browserDigest(w, r), UILocales: uiLocalesOf(r),
	}, client)
}

func (s *Server) showDevice(w http.ResponseWriter, r *http.Request, status int, form deviceForm) {
	form.Action, form.Reference = s.pageAddress(r, devicePath, nil), s.requestID(r)
	s.audit(r, "device page shown", zap.Int("status", status), zap.Bool("problem", form.Problem != ""))
	s.writePage(w, r, status, devicePage, form)
}

// decideDevice ends the consent page of a device: there is nowhere to send the
// browser, the device asks by itself. The same form sent twice decides once.
func (s *Server) decideDevice(w http.ResponseWriter, r *http.Request, req *AuthorizationRequest, client *Client, login signedIn, allow bool) {
	err := s.cfg.Store.DecideDeviceCode(r.Context(), s.userCodeDigest(req.UserCode),
		DeviceDecision{Allow: allow, Scopes: req.Scopes, UserID: login.UserID, LoginID: login.ID, LoginMethod: login.Method, AuthTime: login.AuthTime}, s.origin(r))
	switch {
	case errors.Is(err, ErrNotFound): // expired, or decided by somebody else
		s.errorWords(w, r, http.StatusBadRequest, "device.late")
		return
	case err != nil:
		s.unavailablePage(w, r, "decide device code", err)
		return
	}
	s.audit(r, "device authorization decided", zap.String("user_id", login.UserID), zap.String("client_id", req.ClientID), zap.Bool("allowed", allow))
	words := s.words(r)
	if !allow {
		s.writePage(w, r, http.StatusOK, messagePage, message{
			Title: words.text("device.denied.title"), Explanation: words.text("device.denied.explanation"), Reference: s.requestID(r),
		})
		return
	}
	s.writePage(w, r, http.StatusOK, connectedPage, connectedView{
		Client: displayName(client), Scopes: s.inWords(words, s.cfg.Catalog.Expand(req.Scopes)),
		Apps: s.pageAddress(r, appsPath, nil), Reference: s.requestID(r),
	})
}
