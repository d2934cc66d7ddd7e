package issuer

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
)

const (
	forgotPath = "/oauth/forgot"

	// What may be asked for in an hour: by one network, so that nobody has us write to
	// the world; and for one account, so that nobody fills a mailbox. Both count
	// whether there is such a user or not.
	forgotNetworkLimit, forgotAccountLimit = 10, 3
	forgotWindow                           = time.Hour
	forgotKeys                             = 10_000

	// Mails that are sent at once, and that wait to be; beyond that they are dropped.
	mailsAtOnce, mailQueue = 4, 64
	mailTimeout            = time.Minute // for each, with its look-up
)

// Mail is a message to a user.
type Mail struct {
	To      string // one address, as NormalizeEmail returns it
	Subject string
	Text    string // plain; lines end with "\n"
}

// forgottenPasswords is the state of the page on this node.
type forgottenPasswords struct {
	byNetwork, byAccount *throttle
	tickets              chan struct{} // taken while sending or waiting to
	slots                chan struct{} // taken while sending
}

func newForgottenPasswords(now func() time.Time) *forgottenPasswords {
	return &forgottenPasswords{
		byNetwork: newThrottle(forgotNetworkLimit, forgotWindow, forgotKeys, now),
		byAccount: newThrottle(forgotAccountLimit, forgotWindow, forgotKeys, now),
		tickets:   make(chan struct{}, mailsAtOnce+mailQueue),
		slots:     make(chan struct{}, mailsAtOnce),
	}
}

// inBackground runs send when its turn comes, and reports false, running nothing,
// if too many wait.
func (f *forgottenPasswords) inBackground(send func()) bool {
	select {
	case f.tickets <- struct{}{}:
	default:
		return false
	}
	go func() {
		defer func() { <-f.tickets }()
		f.slots <- struct{}{}
		defer func() { <-f.slots }()
		send()
	}()
	return true
}

// forgotForm is what the page shows.
type forgotForm struct{ Action, Email, Problem string }

// handleForgot answers GET /oauth/forgot and POST {email}. The answer is the same,
// after the same work, whether there is such a user or not, and whether a mail can
// be sent or not: looking for one, and writing to them, is done after it was given.
func (s *Server) handleForgot(w http.ResponseWriter, r *http.Request) {
	page := forgotForm{Action: s.pageAddress(r, forgotPath, nil)}
	if r.Method != http.MethodPost {
		s.writePage(w, r, http.StatusOK, forgotPage, page)
		return
	}
	// 1. The form is ours, and holds an address.
	form, ok := s.readPageForm(w, r)
	if !ok {
		return
	}
	email, err := NormalizeEmail(form.Get("email"))
	if err != nil {
		page.Email, page.Problem = cutEmail(form.Get("email")), s.words(r).text("forgot.unfit")
		s.writePage(w, r, http.StatusOK, forgotPage, page)
		return
	}
	// 2. Who asks may ask. This is said, as it tells nothing of the account.
	if network := networkOf(s.cfg.ClientAddress(r)); network.IsValid() {
		if ok, wait := s.forgotten.byNetwork.Reserve(network.String()); !ok {
			w.Header().Set("Retry-After", strconv.Itoa(ceilSeconds(wait)))
			s.errorWords(w, r, http.StatusTooManyRequests, "patience")
			return
		}
	}
	// 3. The mail. Nothing that comes of it is said, here or by the time it takes.
	words, origin, ctx := s.words(r), s.origin(r), context.WithoutCancel(r.Context())
	logger := s.cfg.Logger.With(zap.String("request_id", origin.RequestID))
	if ok, _ := s.forgotten.byAccount.Reserve(email); !ok {
		logger.Warn("password reset not mailed: asked for too often for one account")
	} else if !s.forgotten.inBackground(func() { s.mailReset(ctx, logger, words, email, origin) }) {
		logger.Error("password reset not mailed: too many mails wait; see whether the mail server answers")
	}
	s.showMessage(w, r, "forgot.sent")
}

// mailReset writes to the user of this address, if there is one.
func (s *Server) mailReset(ctx context.Context, logger *zap.Logger, words *words, email string, origin Origin) {
	ctx, cancel := context.WithTimeout(ctx, mailTimeout)
	defer cancel()
	link, digest := NewResetLink(s.cfg.Issuer)
	switch err := s.cfg.Store.CreateReset(ctx, digest, Reset{Email: email}, s.cfg.ResetTTL, origin); {
	case errors.Is(err, ErrNotFound):
		logger.Info("password reset asked for nobody who can sign in")
		return
	case err != nil:
		logger.Error("password reset not mailed: the database did not answer; the user can ask again", zap.Error(err))
		return
	}
	service := s.pages.name
	if service == "" {
		service = s.host
	}
	mail := Mail{To: email, Subject: words.text("mail.reset.subject", service), Text: strings.Join([]string{
		words.text("mail.reset.who", service, email), link,
		words.text("mail.reset.once", int(s.cfg.ResetTTL/time.Minute)), words.text("mail.reset.ignore"),
	}, "\n\n") + "\n"}
	if err := s.cfg.SendMail(ctx, mail); err != nil {
		logger.Error("password reset not mailed: see to the mail server; until then caddy oauth user reset makes a link for a user", zap.Error(err))
		return
	}
	logger.Info("password reset mailed")
}
