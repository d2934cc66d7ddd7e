package issuer

// pageSample is a page with data of which every part can be told from the rest:
// what stands in the page of ours must stand in the owner's.
type pageSample struct {
	page pageName
	data any
}

// pageSamples show every part of every page.
func pageSamples() []pageSample {
	moment := moment{"sample-moment", "2026-01-02T03:04:05Z"}
	target := redirectTarget{targetSite, "sample-target"}
	place := placeView{"sample-address", "sample-agent"}
	session := sessionLine{ID: "sample-session", Client: "sample-other", Since: moment, Used: moment}
	consent := consentForm{
		Client: "sample-client", User: "sample-user", Action: "/sample", Request: "sample-request", Token: "sample-token",
		SignOut: "/sample/out", SignOutToken: "sample-sign", Target: target, Problem: "sample-problem", Apps: "/sample-apps",
		Asked: []scopeLine{
			{Words: "sample-scope", Includes: []string{"sample-included"}, Link: "https://sample-link/", Routes: []Route{{Name: "sample-route"}, {Name: "sample-tool", Tool: true}}, More: 2},
			{Words: "sample-choice", Field: "scope.sample"},
		},
		Held: []string{"sample-held"}, News: true, Caution: true, Changed: true, Host: "sample-host",
		Limit: "sample-limit", Sessions: []sessionLine{session},
	}
	again := consent
	again.Asked, again.News, again.Host, again.Unverified = nil, false, "", true
	device := consent
	device.Target = redirectTarget{targetDevice, "sample-code"}
	form := signIn{
		Client: "sample-client", Action: "/sample", Request: "sample-request", Email: "sample-email", Problem: "sample-problem", Password: true, Forgot: "/sample-forgot",
		Methods: []signInMethod{{"/sample/method", "sample-method"}},
	}
	form.Passkey = &passkeyForm{Action: "/sample/passkey", Ceremony: "sample-ceremony", Options: "sample-options", Script: "/sample.js"}
	elsewhere := form
	elsewhere.Password, elsewhere.Again, elsewhere.Passkey = false, true, nil
	account := form
	account.Client, account.Account = "", true
	apps := appsView{
		User: "sample-user", Action: "/sample", Token: "sample-token", SignOut: "/sample/out", SignOutToken: "sample-sign",
		Notice: "sample-notice", First: "/sample-first", Next: "/sample-next",
		Apps: []appView{
			{ID: "sample-session", Client: "sample-client", Host: "sample-host", Since: moment, Used: moment, Consent: place, Fetched: place,
				Scopes: []appScope{{Words: "sample-scope", Calls: "sample-calls"}, {Words: "sample-unused", Unused: true}}, Unused: "sample-names"},
			{ID: "sample-second", Client: "sample-other", Target: target, Since: moment, Used: moment, Scopes: []appScope{{Words: "sample-more"}}, Counted: "sample-counted"},
		},
	}
	credentials := credentialsView{
		User: "sample-user", Action: "/sample", Token: "sample-token", SignOut: "/sample/out", SignOutToken: "sample-sign",
		Notice: "sample-notice", Problem: "sample-problem", Apps: "/sample-apps", NewName: "sample-new",
		New: &passkeyForm{Action: "/sample", Ceremony: "sample-ceremony", Options: "sample-options", Script: "/sample.js"},
		Passkeys: []passkeyLine{
			{ID: "sample-passkey", Name: "sample-name", Added: moment, Used: moment, Synced: true},
			{ID: "sample-second", Name: "sample-other", Added: moment, Unused: true},
		},
	}
	credentials.Manages, credentials.Factor = true, &factorView{Since: moment, Codes: "3", Removable: true}
	full := credentials
	full.New, full.Factor, full.Offered = nil, nil, true
	return []pageSample{
		{signInPage, form}, {signInPage, elsewhere}, {signInPage, account},
		{consentPage, consent}, {consentPage, again}, {consentPage, device}, {limitPage, consent},
		{messagePage, message{Title: "sample-title", Explanation: "sample-explanation", Advice: "sample-advice", Reference: "sample-reference", Back: "https://sample-back/", BackTo: "sample-target"}},
		{refusedPage, refusal{Client: "sample-client", Explanation: "sample-explanation", Reference: "sample-reference", Target: target, Back: "https://sample-back/"}},
		{devicePage, deviceForm{Action: "/sample", Code: "sample-code", Problem: "sample-problem", Reference: "sample-reference"}},
		{connectedPage, connectedView{Client: "sample-client", Scopes: []string{"sample-scope"}, Apps: "/sample-apps", Reference: "sample-reference"}},
		{accountPage, accountForm{Client: "sample-client", User: "sample-user", Action: "/sample", Request: "sample-request", Token: "sample-token"}},
		{endSessionPage, endSessionForm{Client: "sample-client", User: "sample-user", Action: "/sample", Request: "sample-request", Token: "sample-token"}},
		{codePage, codeForm{Client: "sample-client", Action: "/sample", Request: "sample-request", Pending: "sample-pending", Problem: "sample-problem"}},
		{enrolPage, enrolForm{Action: "/sample", Request: "sample-request", Pending: "sample-pending", Enrolment: "sample-enrolment", Picture: "data:sample", Secret: "sample-secret", Problem: "sample-problem"}},
		{enrolPage, enrolForm{Action: "/sample", Token: "sample-token", Enrolment: "sample-enrolment", Picture: "data:sample", Secret: "sample-secret"}},
		{recoveryPage, recoveryView{Codes: []string{"sample-code"}, Next: "/sample-next"}},
		{resetPage, resetForm{User: "sample-user", Action: "/sample", Token: "sample-token", Problem: "sample-problem", Least: 8, EndsSessions: true, Factors: true}},
		{forgotPage, forgotForm{Action: "/sample", Email: "sample-email", Problem: "sample-problem"}},
		{credentialsPage, credentials}, {credentialsPage, full},
		{appsPage, apps}, {appsPage, appsView{User: "sample-user", SignOut: "/sample/out", SignOutToken: "sample-sign"}},
	}
}
