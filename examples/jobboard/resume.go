package jobboard

import (
	"net/http"
	"slices"
)

// Analysis tells how well a resume fits a job.
type Analysis struct {
	JobID   string   `json:"job_id"`
	Score   int      `json:"score"` // percent of the job's skills
	Matched []string `json:"matched_skills"`
	Missing []string `json:"missing_skills"`
	Advice  string   `json:"advice"`
}

func (b *Board) getResume(w http.ResponseWriter, _ *http.Request, userID string) {
	writeJSON(w, http.StatusOK, sampleResume(userID))
}

func (b *Board) analyzeResume(w http.ResponseWriter, r *http.Request, userID string) {
	var body struct {
		JobID string `json:"job_id"`
	}
	if problem := readJSON(w, r, &body); problem != nil {
		problem.write(w)
		return
	}
	job, ok := b.job(body.JobID)
	if !ok {
		invalid("job_id", "names no job").write(w)
		return
	}
	writeJSON(w, http.StatusOK, analyze(sampleResume(userID), job))
}

func analyze(resume Resume, job Job) Analysis {
	a := Analysis{JobID: job.ID, Matched: []string{}, Missing: []string{}}
	for _, skill := range job.Skills {
		if slices.Contains(resume.Skills, skill) {
			a.Matched = append(a.Matched, skill)
		} else {
			a.Missing = append(a.Missing, skill)
		}
	}
	a.Score = 100 * len(a.Matched) / len(job.Skills)
	switch {
	case len(a.Missing) == 0:
		a.Advice = "Everything that is asked for is there: apply."
	case len(a.Matched) == 0:
		a.Advice = "Nothing that is asked for is there: look for another job, or say what the resume leaves out."
	default:
		a.Advice = "Put " + a.Matched[0] + " first, and say what you know of " + a.Missing[0] + "."
	}
	return a
}
