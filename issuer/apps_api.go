package issuer

import (
	"net/http"
	"net/url"
	"time"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// appsAPIPath is the page of connected apps for programs: an app of the owner
// shows its users the same on a page of its own. It is a resource by itself, so
// that a token for an API cannot be used here, nor one for here at an API.
const appsAPIPath = "/oauth/api/apps"

func (s *Server) appsResource() string { return s.endpoint(appsAPIPath) }

// appsScopes is the scope that opens it, if one does.
func (s *Server) appsScopes() oauth.ScopeSet {
	if s.cfg.AppsScope == "" {
		return nil
	}
	return oauth.NewScopeSet(s.cfg.AppsScope)
}

// forApps reports whether a request is for a token to the list of apps. It is
// for that or for something else, never for both.
func (s *Server) forApps(client *Client, scopes oauth.ScopeSet, resources []string) (bool, error) {
	named := 0
	for _, resource := range resources {
		if s.cfg.AppsScope != "" && oauth.SameResource(s.appsResource(), resource) {
			named++
		}
	}
	wanted := s.cfg.AppsScope != "" && scopes.Contains(s.cfg.AppsScope)
	switch {
	case named == 0 && !wanted:
		return false, nil
	case !s.clientScopes(client).ContainsAll(s.appsScopes()):
		return false, oauth.InvalidScope("A requested scope is unknown or not for this client.")
	case named < len(resources) || len(scopes) > 1 || len(scopes) == 1 && !wanted:
		return false, oauth.InvalidTarget("The list of connected apps needs a token of its own: ask for its scope alone.")
	}
	return true, nil
}

// appsDocument is one page of the list.
type appsDocument struct {
	Apps []appDocument `json:"apps"`
	// Next is the address of the next page; absent: this is the last one.
	Next string `json:"next,omitempty"`
}

// appDocument is a session as its user sees it.
type appDocument struct {
	ID          string          `json:"id"`
	ClientID    string          `json:"client_id"`
	ClientName  string          `json:"client_name"`
	ClientHost  string          `json:"client_host,omitempty"` // that publishes the client, verified
	Unverified  bool            `json:"unverified"`            // nobody has checked its name
	RedirectURI string          `json:"redirect_uri,omitempty"`
	Resource    string          `json:"resource,omitempty"`
	ConnectedAt time.Time       `json:"connected_at"`
	LastUsedAt  time.Time       `json:"last_used_at"`
	ExpiresAt   time.Time       `json:"expires_at"`
	Connected   *placeDocument  `json:"connected_from,omitempty"`
	Fetched     *placeDocument  `json:"runs_at,omitempty"`
	Scopes      []scopeDocument `json:"scopes"`
	CallsSince  time.Time       `json:"calls_since"` // they are counted from then on
}

type placeDocument struct {
	Address string `json:"address,omitempty"`
	Agent   string `json:"agent,omitempty"`
}

type scopeDocument struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	Calls       *int64 `json:"calls,omitempty"` // in the last 30 days; absent: they are not counted
	Unused      bool   `json:"unused"`          // can be dropped
}

// handleAppsAPI answers GET, with one page of the list, and DELETE, which ends
// all.
func (s *Server) handleAppsAPI(w http.ResponseWriter, r *http.Request) {
	session, ok := s.appsCaller(w, r)
	if !ok {
		return
	}
	if r.Method == http.MethodDelete {
		done, err := s.endAllApps(r, session.UserID)
		s.answerChange(w, r, "ended", done, err)
		return
	}
	after, ok := readAppPosition(r.URL.Query().Get("after"))
	if !ok {
		s.writeError(w, r, oauth.InvalidRequest("The parameter after is not one of this list."))
		return
	}
	apps, next, err := s.appsOf(r.Context(), session.UserID, after)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	document := appsDocument{Apps: []appDocument{}}
	if next != (AppPosition{}) {
		document.Next = s.appsResource() + "?" + url.Values{"after": {next.String()}}.Encode()
	}
	for _, app := range apps {
		document.Apps = append(document.Apps, s.documentOf(r, app))
	}
	writeJSON(w, http.StatusOK, document)
}

// handleAppAPI answers DELETE /oauth/api/apps/ID.
func (s *Server) handleAppAPI(w http.ResponseWriter, r *http.Request) {
	if session, ok := s.appsCaller(w, r); ok {
		done, err := s.endApp(r, session.UserID, r.PathValue("id"))
		s.answerChange(w, r, "ended", done, err)
	}
}

// handleDropAPI answers POST /oauth/api/apps/ID/drop {scope}: of these scopes
// those go that the session has not used.
func (s *Server) handleDropAPI(w http.ResponseWriter, r *http.Request) {
	session, ok := s.appsCaller(w, r)
	if !ok {
		return
	}
	params, _, err := readForm(w, r)
	if err == nil && params["scope"] == "" {
		err = oauth.InvalidRequest("The scope is missing.")
	}
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	done, err := s.dropUnused(r, session.UserID, r.PathValue("id"), params["scope"])
	s.answerChange(w, r, "dropped", done, err)
}

// appsCaller returns the session of whoever calls, or answers.
func (s *Server) appsCaller(w http.ResponseWriter, r *http.Request) (Session, bool) {
	session, _, err := s.tokenSession(w, r, s.cfg.AppsScope, s.appsResource())
	if err == nil && session.UserID == session.ClientID { // a client that acts for itself has connected nothing
		err = errBadToken
	}
	if err != nil {
		s.writeTokenError(w, r, s.cfg.AppsScope, s.appsResource(), err)
		return Session{}, false
	}
	return session, true
}

var (
	errNoSuchApp = &oauth.Error{Status: http.StatusNotFound, Code: "not_found", Description: "The user has no such app connected."}
	errInUse     = &oauth.Error{Status: http.StatusConflict, Code: "in_use", Description: "Nothing was changed: what was to be dropped is in use."}
)

// answerChange says how many apps were ended or scopes dropped.
func (s *Server) answerChange(w http.ResponseWriter, r *http.Request, what string, done notice, err error) {
	switch {
	case err != nil:
	case done.Key == "apps.gone":
		err = errNoSuchApp
	case done.Key == "apps.kept":
		err = errInUse
	}
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, map[string]int{what: done.Count})
}

func (s *Server) documentOf(r *http.Request, app ConnectedApp) appDocument {
	client := s.clientAsItWas(r.Context(), app.ClientID)
	d := appDocument{
		ID: app.ID, ClientID: app.ClientID, ClientName: displayName(client), RedirectURI: app.RedirectURI, Resource: app.Resource,
		ConnectedAt: app.CreatedAt.UTC(), LastUsedAt: app.LastActive.UTC(), ExpiresAt: app.ExpiresAt.UTC(), CallsSince: app.CallsSince.UTC(),
		Connected: documentOfPlace(app.Consent), Fetched: documentOfPlace(app.Client), Scopes: []scopeDocument{},
	}
	d.ClientHost, d.Unverified = whoVouches(client)
	use := s.useOf(app)
	for _, scope := range s.cfg.Catalog.Scopes() {
		if !use.held.Contains(scope.Name) {
			continue
		}
		line := scopeDocument{Name: scope.Name, Description: s.words(r).scope(scope), Unused: use.droppable() && use.unused.Contains(scope.Name)}
		if use.counted.Contains(scope.Name) {
			calls := app.Calls[scope.Name]
			line.Calls = &calls
		}
		d.Scopes = append(d.Scopes, line)
	}
	return d
}

func documentOfPlace(p Place) *placeDocument {
	if p == (Place{}) {
		return nil
	}
	return &placeDocument{p.Address, p.Agent}
}
