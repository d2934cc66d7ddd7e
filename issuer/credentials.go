package issuer

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"time"

	"go.uber.org/zap"
)

const (
	// credentialsPath is the page; accountPath takes its forms and those of the
	// choice of an account.
	credentialsPath = accountPath

	// credentialsPurpose is what the form token of the page is for.
	credentialsPurpose = "credentials"

	// credentialsAge is how long ago the user may have signed in to change what they
	// sign in with: whoever finds a browser open must not make it theirs for good.
	credentialsAge = 15 * time.Minute
)

// managesCredentials reports whether there is anything for users to manage.
func (s *Server) managesCredentials() bool {
	return s.passkeys != nil || s.cfg.SecondFactor != SecondFactorOff
}

// handleCredentials answers GET /oauth/account: what the user signs in with.
func (s *Server) handleCredentials(w http.ResponseWriter, r *http.Request) {
	login, ok := s.recentLogin(w, r)
	if !ok {
		return
	}
	s.showCredentials(w, r, login, "")
}

// recentLogin returns the login of who signed in lately with something of ours,
// or has the person at the browser sign in (again), or says why not.
func (s *Server) recentLogin(w http.ResponseWriter, r *http.Request) (signedIn, bool) {
	login, err := s.currentLogin(r)
	since := s.cfg.Tokens.Issuing().Add(-credentialsAge) // as the database dates logins
	switch {
	case errors.Is(err, ErrNotFound), err == nil && login.AuthTime.Before(since):
		s.signInFor(w, r, credentialsPath, since, "")
	case err != nil:
		s.unavailablePage(w, r, "find login", err)
	case !ownMethod(login.Method):
		s.errorWords(w, r, http.StatusForbidden, "elsewhere")
	default:
		return login, true
	}
	return login, false
}

// ownMethod reports whether it is a way to sign in whose credentials are kept
// here.
func ownMethod(method string) bool {
	return method == passwordMethod || method == otpMethod || method == PasskeyMethod
}

// credentialsView is what the page shows.
type credentialsView struct {
	User, Action, Token   string
	SignOut, SignOutToken string
	Request               string // none: signing out leads nowhere
	Notice                template.HTML
	Problem               string
	Manages               bool // passkeys are on
	Passkeys              []passkeyLine
	New                   *passkeyForm // nil: there is no room for another
	NewName               string
	Factor                *factorView // nil: the user has no second factor
	Offered               bool        // the user may set one up
	Apps                  string
}

// factorView is the second factor of the user.
type factorView struct {
	Since     moment
	Codes     string // how many recovery codes are left
	Removable bool
}

// passkeyLine is one passkey.
type passkeyLine struct {
	ID, Name    string
	Added, Used moment
	Unused      bool
	Synced      bool // it is on other devices of the user too
}

func (s *Server) showCredentials(w http.ResponseWriter, r *http.Request, login signedIn, problem string) {
	view := credentialsView{
		User: login.Name, Action: s.pageAddress(r, accountPath, nil), Token: formToken(login.cookie, credentialsPurpose, ""),
		SignOut: s.pageAddress(r, logoutPath, nil), SignOutToken: formToken(login.cookie, logoutPurpose, ""),
		Notice: s.openNotice(r, login), Problem: problem, Apps: s.pageAddress(r, appsPath, nil),
	}
	err := s.viewPasskeys(w, r, login, &view)
	if err == nil {
		err = s.viewFactor(r, login, &view)
	}
	if err != nil {
		s.unavailablePage(w, r, "show credentials", err)
		return
	}
	s.writePage(w, r, http.StatusOK, credentialsPage, view)
}

func (s *Server) viewFactor(r *http.Request, login signedIn, view *credentialsView) error {
	if s.cfg.SecondFactor == SecondFactorOff {
		return nil
	}
	factor, err := s.cfg.Store.FindSecondFactor(r.Context(), login.UserID)
	if errors.Is(err, ErrNotFound) {
		view.Offered = true
		return nil
	}
	view.Factor = &factorView{Since: s.words(r).moment(factor.CreatedAt, s.cfg.Now()), Codes: s.words(r).show(factor.RecoveryCodes), Removable: s.cfg.SecondFactor == SecondFactorOptional}
	return err
}

func (s *Server) viewPasskeys(w http.ResponseWriter, r *http.Request, login signedIn, view *credentialsView) error {
	if view.Manages = s.passkeys != nil; !view.Manages {
		return nil
	}
	words, now := s.words(r), s.cfg.Now()
	passkeys, err := s.cfg.Store.Passkeys(r.Context(), login.UserID)
	if err != nil {
		return err
	}
	for _, p := range passkeys {
		line := passkeyLine{ID: p.ID, Name: cleanText(p.Name), Added: words.moment(p.CreatedAt, now), Unused: p.LastUsed.IsZero(), Synced: p.BackedUp}
		if !line.Unused {
			line.Used = words.moment(p.LastUsed, now)
		}
		view.Passkeys = append(view.Passkeys, line)
	}
	if len(passkeys) < maxPasskeys {
		if view.New, err = s.offerPasskey(s.browserDigest(w, r), newPasskeyUser(login.UserID, login.Name, passkeys...)); err != nil {
			return err
		}
		view.New.Action = view.Action
		view.NewName = words.passkeyName(r, passkeys)
	}
	return nil
}

// passkeyName proposes a name that tells the device, and the passkey from the
// others.
func (w *words) passkeyName(r *http.Request, passkeys []Passkey) string {
	base := w.place(Place{Agent: r.UserAgent()}).Agent
	if program, _ := browserOf(r.UserAgent()); program == "" {
		base = w.text("passkeys.name.default")
	}
	name := base
	for n := 2; slices.ContainsFunc(passkeys, func(p Passkey) bool { return p.Name == name }); n++ {
		name = fmt.Sprintf("%s %d", base, n)
	}
	return name
}

// changeCredentials answers POST /oauth/account {csrf, and one of credential,
// rename, remove}.
func (s *Server) changeCredentials(w http.ResponseWriter, r *http.Request, form url.Values) {
	// 1. Signed in lately, and our form.
	login, ok := s.recentLogin(w, r)
	if !ok {
		return
	}
	if !validFormToken(form.Get("csrf"), login.cookie, credentialsPurpose, "") {
		s.errorWords(w, r, http.StatusForbidden, "foreign")
		return
	}
	// 2. What is to change.
	var done notice
	var err error
	name := cleanText(form.Get("name"))
	switch {
	case s.cfg.SecondFactor != SecondFactorOff && (form.Has("factor") || form.Has("enrolment")):
		s.changeFactor(w, r, login, form)
		return
	case s.passkeys == nil:
		s.errorWords(w, r, http.StatusBadRequest, "broken")
		return
	case form.Has("credential"):
		done, err = s.addPasskey(w, r, login, form)
	case form.Has("rename") && name == "":
		s.showCredentials(w, r, login, s.words(r).text("passkeys.nameless"))
		return
	case form.Has("rename"):
		done = notice{Key: "passkeys.renamed", Client: name}
		err = s.cfg.Store.RenamePasskey(r.Context(), login.UserID, form.Get("rename"), name)
	case form.Has("remove"):
		done = notice{Key: "passkeys.removed"}
		err = s.cfg.Store.RemovePasskey(r.Context(), login.UserID, form.Get("remove"), sha256.Sum256([]byte(login.cookie)), s.origin(r))
	default:
		s.errorWords(w, r, http.StatusBadRequest, "broken")
		return
	}
	// 3. Said on the page that shows what there is now.
	var refusal *passkeyRefusal
	switch {
	case errors.As(err, &refusal):
		s.audit(r, "passkey not added", zap.String("user_id", login.UserID), zap.Error(refusal))
		s.showCredentials(w, r, login, s.words(r).text(refusal.problem))
		return
	case errors.Is(err, ErrNotFound): // removed meanwhile, or none of theirs
		done = notice{Key: "passkeys.gone"}
	case err != nil:
		s.unavailablePage(w, r, "change credentials", err)
		return
	default:
		s.audit(r, "credentials changed", zap.String("user_id", login.UserID), zap.String("what", done.Key))
	}
	s.leave(w, s.pageAddress(r, credentialsPath, url.Values{"done": {s.sealNotice(login, done)}}))
}

// changeFactor answers {enrolment, code}, or {factor}, which is add, codes or remove.
func (s *Server) changeFactor(w http.ResponseWriter, r *http.Request, login signedIn, form url.Values) {
	page := enrolForm{Action: s.pageAddress(r, accountPath, nil), Token: form.Get("csrf")}
	var codes []string
	var done string
	var err error
	switch action := form.Get("factor"); {
	case form.Has("enrolment"):
		renewed, adopt := s.renew(w, login)
		if codes, err = s.enrol(r, login.UserID, form, renewed); err == nil {
			adopt()
		}
		if errors.Is(err, errCode) {
			page.Enrolment, page.Problem = form.Get("enrolment"), s.words(r).text("code.wrong")
			err = s.showEnrolment(w, r, page, login.UserID, login.Name)
		}
	case action == "add":
		err = s.showEnrolment(w, r, page, login.UserID, login.Name)
	case action == "codes":
		var digests []Digest
		codes, digests = newRecoveryCodes(login.UserID)
		err = s.cfg.Store.SetRecoveryCodes(r.Context(), login.UserID, digests, s.origin(r))
	case action == "remove" && s.cfg.SecondFactor == SecondFactorOptional:
		done = "factor.removed"
		err = s.cfg.Store.RemoveSecondFactor(r.Context(), login.UserID, s.origin(r))
	default:
		s.errorWords(w, r, http.StatusBadRequest, "broken")
		return
	}
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrExists) {
		done, err = "factor.changed", nil
	}
	switch {
	case err != nil:
		s.unavailablePage(w, r, "change second factor", err)
	case done != "":
		s.audit(r, "credentials changed", zap.String("user_id", login.UserID), zap.String("what", done))
		s.leave(w, s.pageAddress(r, credentialsPath, url.Values{"done": {s.sealNotice(login, notice{Key: done})}}))
	case codes != nil:
		s.writePage(w, r, http.StatusOK, recoveryPage, recoveryView{Codes: codes, Next: s.pageAddress(r, credentialsPath, nil)})
	}
}

// renew makes another cookie for the login: one that was stolen before a factor was set
// up must not be worth what the login is worth after. adopt gives it to the browser
// once it counts. SECURITY-CASES A-26.
func (s *Server) renew(w http.ResponseWriter, login signedIn) (renewed RenewedLogin, adopt func()) {
	cookie := newCookieValue()
	renewed = RenewedLogin{Before: sha256.Sum256([]byte(login.cookie)), After: sha256.Sum256([]byte(cookie))}
	return renewed, func() { s.setCookie(w, loginCookie, cookie, s.cfg.LoginTTL) }
}

// addPasskey checks and keeps a new passkey of the user. The error is a
// *passkeyRefusal, or what the store said.
func (s *Server) addPasskey(w http.ResponseWriter, r *http.Request, login signedIn, form url.Values) (notice, error) {
	c, err := s.openCeremony(r, passkeyCreate, form.Get("ceremony"))
	if err != nil {
		return notice{}, &passkeyRefusal{"passkeys.late", err}
	}
	// The ceremony names the user by their handle: another's is refused.
	passkey, err := s.newPasskey(c, newPasskeyUser(login.UserID, login.Name), form.Get("credential"))
	if err != nil {
		return notice{}, &passkeyRefusal{"passkeys.refused", err}
	}
	if passkey.Name = cleanText(form.Get("name")); passkey.Name == "" {
		passkey.Name = s.words(r).text("passkeys.name.default")
	}
	if err := s.useChallenge(r, c); errors.Is(err, ErrReplayed) {
		return notice{}, &passkeyRefusal{"passkeys.late", errors.New("the challenge was answered before")}
	} else if err != nil {
		return notice{}, err
	}
	renewed, adopt := s.renew(w, login)
	err = s.cfg.Store.AddPasskey(r.Context(), passkey, maxPasskeys, renewed, s.origin(r))
	switch {
	case errors.Is(err, ErrExists):
		return notice{}, &passkeyRefusal{"passkeys.known", errors.New("the credential is registered already")}
	case errors.Is(err, ErrTooManyPasskeys):
		return notice{}, &passkeyRefusal{"passkeys.many", err}
	case err == nil:
		adopt()
	}
	return notice{Key: "passkeys.added", Client: passkey.Name}, err
}
