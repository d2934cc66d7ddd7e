package jobboard

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// maxCoverLetter bounds a cover letter, in characters.
const maxCoverLetter = 5000

// Application is a user's application for a job.
type Application struct {
	ID          string    `json:"id"`
	JobID       string    `json:"job_id"`
	JobTitle    string    `json:"job_title"`
	Company     string    `json:"company"`
	Status      string    `json:"status"` // submitted, in_review, rejected or offered
	CoverLetter string    `json:"cover_letter,omitempty"`
	SubmittedAt time.Time `json:"submitted_at"`
}

// statuses are the values that an Application's Status can have.
var statuses = []string{"submitted", "in_review", "rejected", "offered"}

// PeopleHandler serves the applications and resume APIs.
func (b *Board) PeopleHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /applications", forUser(b.listApplications))
	mux.HandleFunc("GET /applications/{id}", forUser(b.getApplication))
	mux.HandleFunc("POST /applications", forUser(b.submitApplication))
	mux.HandleFunc("GET /resume", forUser(b.getResume))
	mux.HandleFunc("POST /resume/analyze", forUser(b.analyzeResume))
	mux.HandleFunc("GET /health", health)
	return withJSONErrors(mux)
}

func (b *Board) listApplications(w http.ResponseWriter, r *http.Request, userID string) {
	query := r.URL.Query()
	page, problem := parsePage(query)
	if problem != nil {
		problem.write(w)
		return
	}
	status := query.Get("status")
	if status != "" && !slices.Contains(statuses, status) {
		invalid("status", "must be one of "+strings.Join(statuses, ", ")).write(w)
		return
	}
	b.mu.Lock()
	found := slices.Clone(b.applications[userID])
	b.mu.Unlock()
	slices.Reverse(found) // newest first
	found = slices.DeleteFunc(found, func(a Application) bool { return status != "" && a.Status != status })
	writePage(w, "applications", found, page)
}

func (b *Board) getApplication(w http.ResponseWriter, r *http.Request, userID string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, a := range b.applications[userID] {
		if a.ID == r.PathValue("id") {
			writeJSON(w, http.StatusOK, a)
			return
		}
	}
	// Also for an application of somebody else: nobody learns that it exists.
	notFound("no such application").write(w)
}

func (b *Board) submitApplication(w http.ResponseWriter, r *http.Request, userID string) {
	var body struct {
		JobID       string `json:"job_id"`
		CoverLetter string `json:"cover_letter"`
	}
	if problem := readJSON(w, r, &body); problem != nil {
		problem.write(w)
		return
	}
	job, ok := b.job(body.JobID)
	switch {
	case body.JobID == "":
		invalid("job_id", "is required").write(w)
		return
	case !ok:
		invalid("job_id", "names no job").write(w)
		return
	case utf8.RuneCountInString(body.CoverLetter) > maxCoverLetter:
		invalid("cover_letter", fmt.Sprintf("must not be longer than %d characters", maxCoverLetter)).write(w)
		return
	}

	b.mu.Lock()
	defer b.mu.Unlock()
	for _, a := range b.applications[userID] {
		if a.JobID == job.ID {
			(&problem{http.StatusConflict, "already_applied", "you have applied for this job", "job_id"}).write(w)
			return
		}
	}
	b.lastApplication++
	application := Application{
		ID: fmt.Sprintf("app-%d", b.lastApplication), JobID: job.ID, JobTitle: job.Title, Company: job.Company,
		Status: "submitted", CoverLetter: body.CoverLetter, SubmittedAt: b.now().UTC(),
	}
	b.applications[userID] = append(b.applications[userID], application)
	w.Header().Set("Location", "/applications/"+application.ID)
	writeJSON(w, http.StatusCreated, application)
}
