package issuer

import (
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/oauth"
)

const (
	appsPath = "/oauth/apps"

	// appsPurpose is what the form token of the page is for.
	appsPurpose = "apps"

	// appsPerPage bounds what one page reads and shows.
	appsPerPage = 20
)

// handleApps answers GET and POST /oauth/apps: what the user has connected, and
// ending that. Only the sessions of who is signed in are ever looked for.
func (s *Server) handleApps(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		s.changeApps(w, r)
		return
	}
	login, err := s.currentLogin(r)
	switch {
	case errors.Is(err, ErrNotFound):
		s.signInFor(w, r, appsPath, time.Time{}, "")
		return
	case err != nil:
		s.unavailablePage(w, r, "find login", err)
		return
	}
	switch stands, answered := s.appStandsBy(w, r, login.Login); {
	case answered:
		return
	case !stands:
		s.signInFor(w, r, appsPath, time.Time{}, login.ID)
		return
	}
	after, ok := readAppPosition(r.URL.Query().Get("after"))
	if !ok {
		s.errorWords(w, r, http.StatusBadRequest, "broken")
		return
	}
	apps, next, err := s.appsOf(r.Context(), login.UserID, after)
	if err != nil {
		s.unavailablePage(w, r, "list connected apps", err)
		return
	}
	s.showApps(w, r, login, apps, after, next)
}

// appsView is what the page shows.
type appsView struct {
	User, Action, Token   string
	SignOut, SignOutToken string
	Request               string        // none: signing out leads nowhere
	Notice                template.HTML // what was just done; empty: nothing
	Apps                  []appView
	First, Next           string // addresses of other pages; empty: there is none
}

// appView is one connected app.
type appView struct {
	ID, Client  string
	Host        string // whose document describes it; empty: none does
	Unverified  bool   // it registered itself, from nowhere in particular
	Target      redirectTarget
	Since, Used moment
	Consent     placeView // where it was allowed
	Fetched     placeView // where it last fetched tokens
	Scopes      []appScope
	Counted     string // since when, if that is later than it was allowed
	Unused      string // names of the scopes that may be dropped; empty: none
}

// appScope is one thing that the app may do.
type appScope struct {
	Words  string
	Calls  string // how often it did; empty: that is not counted
	Unused bool
}

// placeView is where somebody was.
type placeView struct{ Address, Agent string }

func (s *Server) showApps(w http.ResponseWriter, r *http.Request, login signedIn, apps []ConnectedApp, after, next AppPosition) {
	view := appsView{
		User: login.Name, Action: s.pageAddress(r, appsPath, nil), Token: formToken(login.cookie, appsPurpose, ""),
		SignOut: s.pageAddress(r, logoutPath, nil), SignOutToken: formToken(login.cookie, logoutPurpose, ""),
		Notice: s.openNotice(r, login),
	}
	if after != (AppPosition{}) {
		view.First = s.pageAddress(r, appsPath, nil)
	}
	if next != (AppPosition{}) {
		view.Next = s.pageAddress(r, appsPath, url.Values{"after": {next.String()}})
	}
	for _, app := range apps {
		view.Apps = append(view.Apps, s.viewApp(r, app))
	}
	s.writePage(w, r, http.StatusOK, appsPage, view)
}

func (s *Server) viewApp(r *http.Request, app ConnectedApp) appView {
	words, now := s.words(r), s.cfg.Now()
	client := s.clientAsItWas(r.Context(), app.ClientID)
	view := appView{
		ID: app.ID, Client: displayName(client), Target: targetOf(app.RedirectURI),
		Since: words.moment(app.CreatedAt, now), Used: words.moment(app.LastActive, now),
		Consent: words.place(app.Consent), Fetched: words.place(app.Client),
	}
	switch {
	case app.AssertedBy == AssertedByOperator:
		view.Target = redirectTarget{}
	case app.AssertedBy != "":
		view.Target = redirectTarget{targetProvider, hostOf(app.AssertedBy)}
	case app.RedirectURI == "" && app.Resource != "":
		view.Target = redirectTarget{Kind: targetDevice}
	case app.RedirectURI == "": // it was adopted
		view.Target = redirectTarget{}
	}
	view.Host, view.Unverified = whoVouches(client)
	use := s.useOf(app)
	for _, scope := range s.cfg.Catalog.Scopes() {
		if !use.held.Contains(scope.Name) {
			continue
		}
		line := appScope{Words: words.scope(scope), Unused: use.unused.Contains(scope.Name)}
		if calls := app.Calls[scope.Name]; use.counted.Contains(scope.Name) && !line.Unused {
			line.Calls = words.text("apps.calls", int(calls))
		}
		view.Scopes = append(view.Scopes, line)
	}
	if app.CallsSince.After(app.CreatedAt) && now.Sub(app.CallsSince) < callsWindow {
		view.Counted = words.date(app.CallsSince)
	}
	if use.droppable() {
		view.Unused = use.unused.String()
	}
	return view
}

// callsWindow is how far back calls are counted.
const callsWindow = 30 * 24 * time.Hour

// use is what a session did with what it may do.
type use struct {
	held    oauth.ScopeSet // with all that it implies
	counted oauth.ScopeSet // of these it is known whether they were used
	unused  oauth.ScopeSet // without these it could do all that it did
}

// useOf tells what the session used. A scope that implies a used one is not used
// by that; one that is implied by a used one cannot be taken from it. Scopes of
// the server itself, which no gate sees, are not counted.
func (s *Server) useOf(app ConnectedApp) use {
	own := oauth.IdentityScopes().Union(s.appsScopes())
	u := use{held: s.cfg.Catalog.Expand(app.Scopes)}
	u.counted = u.held.Without(own)
	kept := u.held.Intersect(own)
	for _, scope := range u.counted {
		if app.Calls[scope] > 0 {
			kept = kept.Union(oauth.NewScopeSet(scope))
		}
	}
	u.unused = u.counted.Without(s.cfg.Catalog.Expand(kept))
	return u
}

// droppable reports whether something is left when the unused scopes go: an app
// that did nothing is better ended.
func (u use) droppable() bool {
	return len(u.unused) > 0 && len(u.counted.Without(u.unused)) > 0
}

// changeApps answers POST /oauth/apps {csrf, and one of end, all, drop}. Each
// takes effect at once, and none can be undone.
func (s *Server) changeApps(w http.ResponseWriter, r *http.Request) {
	// 1. Our form, and the login that the page was shown to.
	form, ok := s.readPageForm(w, r)
	if !ok {
		return
	}
	login, err := s.currentLogin(r)
	switch {
	case errors.Is(err, ErrNotFound): // signed out meanwhile
		s.signInFor(w, r, appsPath, time.Time{}, "")
		return
	case err != nil:
		s.unavailablePage(w, r, "find login", err)
		return
	case !validFormToken(form.Get("csrf"), login.cookie, appsPurpose, ""):
		s.errorWords(w, r, http.StatusForbidden, "foreign")
		return
	}
	// 2. What is to go.
	var done notice
	switch {
	case form.Has("end"):
		done, err = s.endApp(r, login.UserID, form.Get("end"))
	case form.Has("drop"):
		done, err = s.dropUnused(r, login.UserID, form.Get("drop"), form.Get("unused"))
	case form.Get("all") == "end":
		done, err = s.endAllApps(r, login.UserID)
	default:
		s.errorWords(w, r, http.StatusBadRequest, "broken")
		return
	}
	if err != nil {
		s.unavailablePage(w, r, "change connected apps", err)
		return
	}
	// 3. Said on the page that shows what is left.
	s.leave(w, s.pageAddress(r, appsPath, url.Values{"done": {s.sealNotice(login, done)}}))
}

// endApp ends a session of the user. One that is not there is none of theirs, or
// ended before.
func (s *Server) endApp(r *http.Request, userID, sessionID string) (notice, error) {
	app, err := s.cfg.Store.ConnectedApp(r.Context(), userID, sessionID)
	if err == nil {
		err = s.cfg.Store.EndUserSession(r.Context(), sessionID, userID, s.origin(r))
	}
	switch {
	case errors.Is(err, ErrNotFound):
		return notice{Key: "apps.gone"}, nil
	case err != nil:
		return notice{}, err
	}
	s.audit(r, "session ended by its user", zap.String("user_id", userID), zap.String("session_id", sessionID), zap.String("client_id", app.ClientID))
	return notice{Key: "apps.ended", Client: displayName(s.clientAsItWas(r.Context(), app.ClientID)), Count: 1}, nil
}

func (s *Server) endAllApps(r *http.Request, userID string) (notice, error) {
	ended, err := s.cfg.Store.EndUserSessions(r.Context(), userID, s.origin(r))
	if err != nil {
		return notice{}, err
	}
	s.audit(r, "all sessions ended by their user", zap.String("user_id", userID), zap.Int("sessions", ended))
	return notice{Key: "apps.ended.all", Count: ended}, nil
}

// dropUnused takes from a session what it did not use: of what the user was shown
// as unused, that which still is.
func (s *Server) dropUnused(r *http.Request, userID, sessionID, shown string) (notice, error) {
	app, err := s.cfg.Store.ConnectedApp(r.Context(), userID, sessionID)
	if errors.Is(err, ErrNotFound) {
		return notice{Key: "apps.gone"}, nil
	}
	names, bad := oauth.ParseScope(shown)
	if err != nil || bad != nil {
		return notice{Key: "apps.kept"}, err
	}
	use := s.useOf(app)
	// Expanded, since what stays may imply some of what shall go.
	keep := s.cfg.Catalog.Expand(use.held.Without(use.unused.Intersect(names)))
	name := displayName(s.clientAsItWas(r.Context(), app.ClientID))
	if !use.droppable() || keep.Equal(use.held) {
		return notice{Key: "apps.kept", Client: name}, nil
	}
	err = s.cfg.Store.NarrowSession(r.Context(), userID, sessionID, app.Scopes, keep, s.origin(r))
	if errors.Is(err, ErrNotFound) { // changed meanwhile: let the user look again
		return notice{Key: "apps.kept", Client: name}, nil
	}
	if err != nil {
		return notice{}, err
	}
	s.audit(r, "session narrowed by its user", zap.String("user_id", userID), zap.String("session_id", sessionID), zap.String("client_id", app.ClientID), zap.Stringer("scope", keep))
	return notice{Key: "apps.dropped", Client: name, Count: len(use.held.Without(keep))}, nil
}
