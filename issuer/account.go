package issuer

import (
	"errors"
	"net/http"
	"slices"

	"go.uber.org/zap"
)

const (
	accountPath = "/oauth/account"

	// accountPurpose is what the form token of a choice of account is for.
	accountPurpose = "account"
)

// accountForm is what the page shows.
type accountForm struct {
	Client, User           string
	Action, Request, Token string
}

// showAccount lets the user choose to go on as who they are signed in, or as
// somebody else: prompt=select_account. OpenID Connect Core section 3.1.2.1.
func (s *Server) showAccount(w http.ResponseWriter, r *http.Request, req *AuthorizationRequest, client *Client, login signedIn) {
	sealed, err := s.sealRequest(req)
	if err != nil {
		s.unavailablePage(w, r, "seal authorization request", err)
		return
	}
	s.writePage(w, r, http.StatusOK, accountPage, accountForm{
		Client: displayName(client), User: login.Name, Action: s.endpoint(accountPath), Request: sealed,
		Token: formToken(login.cookie, accountPurpose, req.ID),
	})
}

// handleAccount answers /oauth/account: GET, and the forms of that page, are about
// what the user signs in with; POST {request, csrf, account} is the choice of an
// account. Who wants another account signs in; until then the one there is stays.
func (s *Server) handleAccount(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost && s.managesCredentials() {
		s.handleCredentials(w, r)
		return
	}
	form, ok := s.readPageForm(w, r)
	if !ok {
		return
	}
	if !form.Has("account") && s.managesCredentials() {
		s.changeCredentials(w, r, form)
		return
	}
	req, client, ok := s.resumeRequest(w, r, form.Get("request"))
	if !ok {
		return
	}
	login, err := s.currentLogin(r)
	switch {
	case errors.Is(err, ErrNotFound): // signed out meanwhile
		s.continueAuthorization(w, r, req, client)
		return
	case err != nil:
		s.unavailablePage(w, r, "find login", err)
		return
	case !validFormToken(form.Get("csrf"), login.cookie, accountPurpose, req.ID):
		s.errorWords(w, r, http.StatusForbidden, "foreign")
		return
	}
	switch form.Get("account") {
	case "same":
		req.Prompt = slices.DeleteFunc(req.Prompt, func(value string) bool { return value == promptSelectAccount })
	case "other":
		req.OtherAccount = true
	default:
		s.errorWords(w, r, http.StatusBadRequest, "broken")
		return
	}
	s.audit(r, "account chosen", zap.String("user_id", login.UserID), zap.String("client_id", client.ID), zap.Bool("same", !req.OtherAccount))
	s.goOn(w, r, req)
}
